//! A step as the device reads it: one array of whole numbers, copied in one go.
//!
//! Rows stand in another order than in the batch: those of answers first, then those of prompts, because they are
//! computed by different kernels. Which kind a row is depends on its own position alone, so that a request's numbers
//! never depend on who else is in the step.

use std::{collections::HashMap, ops::Range, sync::Arc};

use crate::{
    kernels::cuda::{Buffer, CudaError, Gpu, Pinned, Places, SEQUENCE_FLOATS, SEQUENCE_INTS, TILE, Wishes},
    model::{PENDING, StepBatch},
};

/// The sizes of the largest step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// Rows.
    pub(super) rows: usize,
    /// Rows whose logits are wanted.
    pub(super) logits: usize,
    /// Sequences.
    pub(super) sequences: usize,
    /// Entries of all block tables together.
    pub(super) tables: usize,
}

/// Where each array begins, in numbers.
#[derive(Debug, Clone, Copy)]
struct Offsets {
    tokens: usize,
    positions: usize,
    slots: usize,
    table_offsets: usize,
    logit_rows: usize,
    tiles: usize,
    sequence_ints: usize,
    sequence_floats: usize,
    shares: usize,
    guesses: usize,
    tables: usize,
}

impl Capacity {
    fn offsets(&self) -> Offsets {
        let [tokens, positions, slots, table_offsets, logit_rows] = [0, 1, 2, 3, 4].map(|array| array * self.rows);
        let tiles = logit_rows + self.logits;
        let sequence_ints = tiles + 2 * (self.rows.div_ceil(TILE) + self.sequences);
        // Steps that are padded have one sequence for every row of logits.
        let sequence_floats = sequence_ints + SEQUENCE_INTS * self.logits;
        // The bits of doubles, aligned as these.
        let shares = (sequence_floats + SEQUENCE_FLOATS * self.logits).next_multiple_of(2);
        let guesses = shares + 2 * self.logits;
        let tables = guesses + self.logits;
        Offsets {
            tokens,
            positions,
            slots,
            table_offsets,
            logit_rows,
            tiles,
            sequence_ints,
            sequence_floats,
            shares,
            guesses,
            tables,
        }
    }

    /// Numbers of the whole array; one table entry more is for rows that pad.
    pub(super) fn numbers(&self) -> usize {
        self.offsets().tables + self.tables + 1
    }
}

/// What decides how a step is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StepShape {
    /// Rows of answers, which come first.
    pub(super) answers: usize,
    /// Rows of prompts.
    pub(super) prompts: usize,
    /// Tiles of prompts' rows.
    pub(super) tiles: usize,
    /// Rows whose logits are wanted.
    pub(super) logits: usize,
    /// Positions that the longest context of an answer's row has.
    pub(super) answer_context: usize,
    /// The same for prompts.
    pub(super) prompt_context: usize,
}

impl StepShape {
    /// All rows.
    pub(super) fn rows(&self) -> usize {
        self.answers + self.prompts
    }
}

/// The array on the device, and where its parts lie.
#[derive(Debug)]
pub(super) struct StepArrays {
    capacity: Capacity,
    offsets: Offsets,
    numbers: Buffer<i32>,
}

impl StepArrays {
    pub(super) fn new(gpu: &Arc<Gpu>, capacity: Capacity) -> Result<Self, CudaError> {
        let numbers = Buffer::new(gpu, capacity.numbers())?;
        Ok(Self { capacity, offsets: capacity.offsets(), numbers })
    }

    /// Starts the copy of the first `len` numbers of `from`, which stays as it is until it is done.
    pub(super) fn start_copy(&self, from: &Pinned<i32>, len: usize) -> Result<(), CudaError> {
        self.numbers.start_write(from, len)
    }

    /// Where what is wanted of the logits is written.
    pub(super) fn wishes<'a>(&self, to: &'a mut Pinned<i32>) -> WishWriter<'a> {
        WishWriter { to, offsets: self.offsets }
    }

    /// Where the device finds it.
    pub(super) fn wish_places(&self) -> Wishes {
        let at = |offset| self.numbers.at(offset);
        let Offsets { sequence_ints, sequence_floats, shares, guesses, .. } = self.offsets;
        Wishes { ints: at(sequence_ints), floats: at(sequence_floats), shares: at(shares), guesses: at(guesses) }
    }

    pub(super) fn tokens(&self) -> u64 {
        self.numbers.at(self.offsets.tokens)
    }

    pub(super) fn logit_rows(&self) -> u64 {
        self.numbers.at(self.offsets.logit_rows)
    }

    pub(super) fn places(&self) -> Places {
        let at = |offset| self.numbers.at(offset);
        let Offsets { positions, slots, table_offsets, tiles, tables, .. } = self.offsets;
        Places {
            positions: at(positions),
            slots: at(slots),
            table_offsets: at(table_offsets),
            tables: at(tables),
            tiles: at(tiles),
        }
    }

    /// Writes `batch` into `to`, padded to `pad` rows where it has fewer and all are answers'; gives its shape and how
    /// many numbers are to be copied. A token that is pending is taken from those that the step before draws, at the
    /// index that `pending` gives for its slot. Padding writes into the block `spare`.
    pub(super) fn fill(
        &self,
        to: &mut Pinned<i32>,
        batch: &StepBatch,
        pending: &HashMap<usize, usize>,
        padding: Padding,
    ) -> (StepShape, usize) {
        let mut filler = Filler { to, offsets: self.offsets, shape: StepShape::default(), places: Vec::new() };
        let mut table = Vec::with_capacity(batch.sequences.len());
        let mut tables = self.offsets.tables;
        for sequence in &batch.sequences {
            table.push((tables - self.offsets.tables) as i32);
            for &block in &batch.block_tables[sequence.blocks.clone()] {
                filler.to[tables] = block as i32;
                tables += 1;
            }
        }
        filler.places = vec![0; batch.tokens.len()];
        for answers in [true, false] {
            for (index, sequence) in batch.sequences.iter().enumerate() {
                let first = batch.positions.get(sequence.rows.start).map_or(0, |&position| position as usize);
                let prompt = sequence.prompt.saturating_sub(first).min(sequence.rows.len());
                let border = sequence.rows.start + prompt;
                let rows = if answers { border..sequence.rows.end } else { sequence.rows.start..border };
                let sampled = pending.get(&sequence.slot).copied();
                filler.rows(batch, rows, (answers, table[index], sampled));
            }
        }
        for (index, &row) in batch.logit_rows.iter().enumerate() {
            filler.to[self.offsets.logit_rows + index] = filler.places[row] as i32;
        }
        filler.shape.logits = batch.logit_rows.len();
        debug_assert!(filler.shape.rows() <= self.capacity.rows && filler.shape.logits <= self.capacity.logits);
        debug_assert!(tables - self.offsets.tables <= self.capacity.tables);
        let shape = filler.pad(padding, tables);
        (shape, tables + 1)
    }
}

/// Writes what is wanted of a step's logits.
pub(super) struct WishWriter<'a> {
    to: &'a mut Pinned<i32>,
    offsets: Offsets,
}

impl WishWriter<'_> {
    /// Of the sequence at `index`.
    pub(super) fn sequence(&mut self, index: usize, (ints, floats): ([i32; SEQUENCE_INTS], [f32; SEQUENCE_FLOATS])) {
        let Offsets { sequence_ints, sequence_floats, .. } = self.offsets;
        self.to[sequence_ints + index * SEQUENCE_INTS..][..SEQUENCE_INTS].copy_from_slice(&ints);
        let floats = floats.map(|number| number.to_bits() as i32);
        self.to[sequence_floats + index * SEQUENCE_FLOATS..][..SEQUENCE_FLOATS].copy_from_slice(&floats);
    }

    /// Nothing of the sequence at `index`.
    pub(super) fn nothing(&mut self, index: usize) {
        self.sequence(index, ([0; SEQUENCE_INTS], [0.0; SEQUENCE_FLOATS]));
    }

    /// Of a row: the share of the weights at which its token is drawn, and the token that the next row takes for it.
    pub(super) fn row(&mut self, row: usize, share: f64, guess: Option<u32>) {
        let Offsets { shares, guesses, .. } = self.offsets;
        let bits = share.to_bits();
        self.to[shares + 2 * row] = bits as u32 as i32;
        self.to[shares + 2 * row + 1] = (bits >> 32) as u32 as i32;
        self.to[guesses + row] = guess.map_or(-1, |token| token as i32);
    }
}

/// Up to how many answers' rows, and logits, a step is filled, and with what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Padding {
    pub(super) rows: usize,
    /// The block into which padding writes.
    pub(super) block: usize,
    pub(super) block_size: usize,
}

struct Filler<'a> {
    to: &'a mut Pinned<i32>,
    offsets: Offsets,
    shape: StepShape,
    /// Where each row of the batch came to stand.
    places: Vec<usize>,
}

impl Filler<'_> {
    /// The next rows, of one sequence and one kind, whose table begins at an offset.
    fn rows(&mut self, batch: &StepBatch, rows: Range<usize>, (answers, table, sampled): (bool, i32, Option<usize>)) {
        let count = rows.len();
        if count == 0 {
            return;
        }
        let context = batch.positions[rows.end - 1] as usize + 1;
        if answers {
            self.shape.answer_context = self.shape.answer_context.max(context);
        } else {
            for first in (0..count).step_by(TILE) {
                let tile = self.offsets.tiles + 2 * self.shape.tiles;
                self.to[tile] = (self.shape.rows() + first) as i32;
                self.to[tile + 1] = TILE.min(count - first) as i32;
                self.shape.tiles += 1;
            }
            self.shape.prompt_context = self.shape.prompt_context.max(context);
        }
        for row in rows {
            let place = self.shape.rows();
            self.places[row] = place;
            let token = match (batch.tokens[row], sampled) {
                (PENDING, Some(index)) => -1 - index as i32,
                (token, _) => token as i32,
            };
            self.row(place, [token, batch.positions[row] as i32, batch.slots[row] as i32, table]);
            if answers {
                self.shape.answers += 1;
            } else {
                self.shape.prompts += 1;
            }
        }
    }

    fn row(&mut self, place: usize, [token, position, slot, table]: [i32; 4]) {
        let Offsets { tokens, positions, slots, table_offsets, .. } = self.offsets;
        self.to[tokens + place] = token;
        self.to[positions + place] = position;
        self.to[slots + place] = slot;
        self.to[table_offsets + place] = table;
    }

    /// Fills up with rows that see themselves alone; `end` is behind the last table.
    fn pad(mut self, padding: Padding, end: usize) -> StepShape {
        self.to[end] = padding.block as i32;
        let (table, slot) = (end - self.offsets.tables, padding.block * padding.block_size);
        if self.shape.prompts > 0 {
            return self.shape;
        }
        for place in self.shape.answers..padding.rows {
            self.row(place, [0, 0, slot as i32, table as i32]);
            self.shape.answers += 1;
        }
        for index in self.shape.logits..padding.rows {
            self.to[self.offsets.logit_rows + index] = 0;
            self.shape.logits += 1;
        }
        self.shape
    }
}
