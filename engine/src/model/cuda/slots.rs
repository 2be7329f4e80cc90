//! What drawing needs of each sequence: its wishes, its random numbers, and its row of counts on the device.

use std::{ops::Range, sync::Arc};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    generation::Sampling,
    kernels::cuda::{Buffer, CudaError, Gpu, MOST_TOP, Penalties, SEQUENCE_FLOATS, SEQUENCE_INTS, SampleKernels},
};

/// One sequence.
#[derive(Debug)]
pub(super) struct Slot {
    sampling: Sampling,
    logprobs: Option<u8>,
    rng: ChaCha8Rng,
    counts: Option<usize>,
}

impl Slot {
    /// How many of the most likely tokens it wants to see; `None` if no logprobs at all.
    pub(super) fn logprobs(&self) -> Option<u8> {
        self.logprobs
    }

    /// What it wants of its rows of logits.
    pub(super) fn wishes(&self, rows: &Range<usize>) -> ([i32; SEQUENCE_INTS], [f32; SEQUENCE_FLOATS]) {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        let top_k = i32::try_from(top_k).unwrap_or(i32::MAX);
        let logprobs = self.logprobs.map_or(-1, i32::from);
        let counts = self.counts.map_or(-1, |row| row as i32);
        (
            [rows.start as i32, rows.len() as i32, top_k, logprobs, counts, 0, 0, 0],
            [temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, 0.0, 0.0],
        )
    }

    /// The random numbers of the next `rows` draws. Those of guesses are taken back until it is known how many of
    /// them are drawn.
    pub(super) fn shares(&mut self, rows: usize) -> impl Iterator<Item = f64> + use<> {
        let (mut ahead, draws) = (self.rng.clone(), self.draws());
        if rows == 1 {
            self.skip(1);
        }
        (0..rows).map(move |_| if draws { ahead.random() } else { 0.0 })
    }

    /// Of `rows` draws, so many were made.
    pub(super) fn drew(&mut self, rows: usize, drawn: usize) {
        if rows > 1 {
            self.skip(drawn);
        }
    }

    /// Whether its tokens are left to chance.
    fn draws(&self) -> bool {
        self.sampling.temperature != 0.0
    }

    /// Those random numbers are used.
    fn skip(&mut self, count: usize) {
        for _ in 0..if self.draws() { count } else { 0 } {
            let _: f64 = self.rng.random();
        }
    }
}

/// All sequences', and the counts of those with penalties.
#[derive(Debug)]
pub(super) struct Slots {
    gpu: Arc<Gpu>,
    slots: Vec<Option<Slot>>,
    penalties: Penalties,
    free_rows: Vec<usize>,
}

impl Slots {
    /// Counts of `rows` sequences at first.
    pub(super) fn new(gpu: &Arc<Gpu>, vocabulary: usize, rows: usize) -> Result<Self, CudaError> {
        let penalties = Penalties::new(gpu, vocabulary, rows)?;
        Ok(Self { gpu: Arc::clone(gpu), slots: Vec::new(), penalties, free_rows: (0..rows).rev().collect() })
    }

    pub(super) fn penalties(&self) -> &Penalties {
        &self.penalties
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// A sequence begins; true if the counts had to move for it.
    pub(super) fn begin(
        &mut self,
        slot: usize,
        sampling: Sampling,
        logprobs: Option<u8>,
        prompt: &[u32],
        kernels: &SampleKernels,
    ) -> Result<bool, CudaError> {
        self.end(slot);
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = sampling;
        let (mut counts, mut moved) = (None, false);
        if repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0 {
            moved = self.make_room()?;
            let row = self.free_rows.pop();
            if let Some(row) = row {
                self.penalties.clear(row)?;
                if repetition_penalty != 1.0 {
                    let prompt: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
                    kernels.mark_prompt(&self.penalties, row, &Buffer::of(&self.gpu, &prompt)?)?;
                }
            }
            counts = row;
        }
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        let rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        // The device has room for no more.
        let logprobs = logprobs.map(|count| count.min(MOST_TOP));
        self.slots[slot] = Some(Slot { sampling, logprobs, rng, counts });
        Ok(moved)
    }

    /// A sequence is over.
    pub(super) fn end(&mut self, slot: usize) {
        let ended = self.slots.get_mut(slot).and_then(Option::take);
        self.free_rows.extend(ended.and_then(|slot| slot.counts));
    }

    /// Makes sure that a row of counts is free; true if all had to move.
    fn make_room(&mut self) -> Result<bool, CudaError> {
        if !self.free_rows.is_empty() {
            return Ok(false);
        }
        let rows = self.penalties.rows();
        self.penalties = self.penalties.doubled(&self.gpu)?;
        self.free_rows.extend((rows..2 * rows).rev());
        Ok(true)
    }
}
