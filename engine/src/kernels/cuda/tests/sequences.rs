//! Sequences whose keys and values lie in a cache, in blocks out of order; what nobody wrote there is no number.

use std::ops::Range;

use super::{
    super::{Attention, Heads, KvCache, KvElement, KvShape, Places, RowRange, SPLIT},
    *,
};

/// Every kind of number and of cache.
pub(super) const KINDS: [(Element, KvElement); 6] = [
    (Element::Bf16, KvElement::Same),
    (Element::F16, KvElement::Same),
    (Element::F32, KvElement::Same),
    (Element::Bf16, KvElement::Q8),
    (Element::F16, KvElement::Q8),
    (Element::F32, KvElement::Q8),
];
/// The layer that is used, of [`LAYERS`].
const LAYER: usize = 1;
const LAYERS: usize = 2;

/// Numbers of the splits' sums: not all rows' at once.
const PARTIAL: usize = 100_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) kind: (Element, KvElement),
    pub(super) heads: Heads,
    pub(super) block_size: usize,
}

/// A position of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) sequence: usize,
    pub(super) position: usize,
}

/// A layer's keys, or its values, as they lie in the cache.
#[derive(PartialEq)]
pub(super) struct Plane {
    pub(super) bytes: Vec<u8>,
    /// The bits of the scales, which may be no numbers.
    pub(super) scales: Vec<u32>,
}

pub(super) struct Sequences {
    pub(super) gpu: Arc<Gpu>,
    pub(super) setting: Setting,
    pub(super) attention: Attention,
    cache: KvCache,
    lengths: Vec<usize>,
    /// All sequences' blocks, and where each one's begin.
    tables: Vec<i32>,
    offsets: Vec<usize>,
    /// Each sequence's queries, keys and values, and the same with queries turned once they were written.
    pub(super) qkv: Vec<Vec<f32>>,
    turned: Vec<Vec<u8>>,
    /// Cosine and sine of each position's pairs.
    pub(super) angles: Vec<f32>,
}

impl Sequences {
    /// Sequences of these lengths, and one of a single position in the block that nobody reads: see [`Self::padding`].
    pub(super) fn new(gpu: &Arc<Gpu>, setting: Setting, lengths: &[usize]) -> Self {
        let Setting { kind: (element, kv), heads, block_size } = setting;
        let blocks: usize = lengths.iter().map(|length| length.div_ceil(block_size)).sum::<usize>() + 3;
        let Heads { kv_heads, head_dim, .. } = heads;
        let shape = KvShape { layers: LAYERS, kv_heads, head_dim, block_size, element, kv };
        let cache = KvCache::new(gpu, shape, blocks).unwrap();
        cache.poison().unwrap();
        let lengths: Vec<usize> = lengths.iter().copied().chain([1]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let angles = noise(longest * head_dim / 2, 5).into_iter().flat_map(|angle| {
            let (sin, cos) = (angle * std::f32::consts::PI).sin_cos();
            [cos, sin]
        });
        let angles: Vec<f32> = angles.collect();
        let numbers = |(index, length): (usize, &usize)| -> Vec<f32> {
            let numbers = noise(length * heads.qkv_width(), 100 + index as u64).into_iter().enumerate();
            numbers.map(|(at, number)| rounded(if at % 11 == 0 { 3.0 * number } else { number }, element)).collect()
        };
        let qkv: Vec<Vec<f32>> = lengths.iter().enumerate().map(numbers).collect();
        let (tables, offsets) = tables(&lengths, block_size, blocks);
        let mut attention = Attention::new(gpu, heads, setting.kind, &angles).unwrap();
        // What no split wrote is no number either.
        attention.partial = Buffer::of(gpu, &vec![f32::NAN; PARTIAL]).unwrap();
        Self {
            attention,
            turned: qkv.iter().map(|numbers| to_bytes(numbers, element)).collect(),
            gpu: Arc::clone(gpu),
            setting,
            cache,
            lengths,
            tables,
            offsets,
            qkv,
            angles,
        }
    }

    /// All positions of all sequences.
    pub(super) fn rows(&self) -> Vec<Row> {
        let lengths = self.lengths[..self.lengths.len() - 1].iter().enumerate();
        lengths.flat_map(|(sequence, &length)| (0..length).map(move |position| Row { sequence, position })).collect()
    }

    /// A row that pads a step.
    pub(super) fn padding(&self) -> Row {
        Row { sequence: self.lengths.len() - 1, position: 0 }
    }

    /// Has the rows be what `qkv` says now.
    pub(super) fn take_qkv(&mut self) {
        self.turned = self.qkv.iter().map(|numbers| to_bytes(numbers, self.setting.kind.0)).collect();
    }

    fn slot(&self, row: Row) -> usize {
        let block = self.tables[self.offsets[row.sequence] + row.position / self.setting.block_size];
        block as usize * self.setting.block_size + row.position % self.setting.block_size
    }

    /// The index of a head's key and value among those of all slots.
    pub(super) fn place(&self, row: Row, kv_head: usize) -> usize {
        let (slot, size) = (self.slot(row), self.setting.block_size);
        (slot / size * self.setting.heads.kv_heads + kv_head) * size + slot % size
    }

    fn row_bytes(&self) -> usize {
        self.setting.heads.qkv_width() * self.setting.kind.0.bytes()
    }

    /// Bytes of a row of attention's.
    pub(super) fn out_bytes(&self) -> usize {
        self.setting.heads.heads * self.setting.heads.head_dim * self.setting.kind.0.bytes()
    }

    fn uploaded(&self, rows: &[Row]) -> Buffer<u8> {
        let row = |row: &Row| &self.turned[row.sequence][row.position * self.row_bytes()..][..self.row_bytes()];
        Buffer::of(&self.gpu, &rows.iter().flat_map(row).copied().collect::<Vec<_>>()).unwrap()
    }

    /// Turns queries and keys of rows, all in one call, and has keys and values written; gives the rows after that.
    pub(super) fn write(&mut self, rows: &[Row]) -> Vec<u8> {
        let (qkv, step) = (self.uploaded(rows), Step::new(self, rows, &[]));
        self.attention.rope_write(&qkv, &self.cache, LAYER, &step.places(), rows.len()).unwrap();
        let (after, bytes) = (qkv.read().unwrap(), self.row_bytes());
        for (row, after) in rows.iter().zip(after.chunks(bytes)) {
            self.turned[row.sequence][row.position * bytes..][..bytes].copy_from_slice(after);
        }
        after
    }

    /// Attention of the rows from `first` on, as of answers.
    pub(super) fn answers(&self, rows: &[Row], first: usize, splits: usize) -> Vec<u8> {
        let (qkv, step) = (self.uploaded(rows), Step::new(self, rows, &[]));
        let out = Buffer::of(&self.gpu, &vec![0xff; rows.len() * self.out_bytes()]).unwrap();
        let range = RowRange { first, count: rows.len() - first };
        self.attention.answers((&qkv, &out), (&self.cache, LAYER), &step.places(), range, splits).unwrap();
        out.read().unwrap()
    }

    /// As many splits as the rows need.
    pub(super) fn splits(rows: &[Row]) -> usize {
        rows.iter().map(|row| row.position / SPLIT + 1).max().unwrap_or(1)
    }

    /// Attention of positions of sequences, as of prompts, in tiles of up to so many rows.
    pub(super) fn prompts(&self, chunks: &[(usize, Range<usize>)], tile: usize) -> Vec<u8> {
        let (mut rows, mut tiles) = (Vec::new(), Vec::new());
        for (sequence, positions) in chunks {
            for first in positions.clone().step_by(tile) {
                tiles.extend([rows.len() as i32, tile.min(positions.end - first) as i32]);
                let end = positions.end.min(first + tile);
                rows.extend((first..end).map(|position| Row { sequence: *sequence, position }));
            }
        }
        let (qkv, step) = (self.uploaded(&rows), Step::new(self, &rows, &tiles));
        let out = Buffer::of(&self.gpu, &vec![0xff; rows.len() * self.out_bytes()]).unwrap();
        self.attention.prompts((&qkv, &out), (&self.cache, LAYER), &step.places(), tiles.len() / 2).unwrap();
        out.read().unwrap()
    }

    /// Keys and values of each layer.
    pub(super) fn planes(&self) -> Vec<[Plane; 2]> {
        let plane = |(bytes, scales): (&Buffer<u8>, &Buffer<f32>)| Plane {
            bytes: bytes.read().unwrap(),
            scales: scales.read().unwrap().into_iter().map(f32::to_bits).collect(),
        };
        let layers = (0..LAYERS).map(|layer| self.cache.planes(layer));
        layers.map(|[keys, values]| [plane(keys), plane(values)]).collect()
    }

    /// Keys and values as numbers, head after head of every slot.
    pub(super) fn stored(&self) -> [Vec<f32>; 2] {
        let ((element, kv), head_dim) = (self.setting.kind, self.setting.heads.head_dim);
        let numbers = |plane: Plane| match kv {
            KvElement::Same => from_bytes(&plane.bytes, element),
            KvElement::Q8 => {
                let scaled = |(index, &byte): (usize, &u8)| {
                    f32::from(byte as i8) * f32::from_bits(plane.scales[index / head_dim])
                };
                plane.bytes.iter().enumerate().map(scaled).collect()
            }
        };
        let mut planes = self.planes();
        planes.swap_remove(LAYER).map(numbers)
    }

    /// Makes keys and values of a sequence's positions no numbers.
    pub(super) fn spoil(&self, sequence: usize, positions: Range<usize>) {
        let ((element, kv), Heads { kv_heads, head_dim, .. }) = (self.setting.kind, self.setting.heads);
        let bytes = head_dim * if kv == KvElement::Q8 { 1 } else { element.bytes() };
        let rows = positions.map(|position| Row { sequence, position });
        let places: Vec<usize> = rows.flat_map(|row| (0..kv_heads).map(move |head| self.place(row, head))).collect();
        for (numbers, scales) in self.cache.planes(LAYER) {
            for &place in &places {
                numbers.write(place * bytes, &vec![0xff; bytes]).unwrap();
                if kv == KvElement::Q8 {
                    scales.write(place, &[f32::NAN]).unwrap();
                }
            }
        }
    }

    /// A row's attention in double precision, over what is stored.
    pub(super) fn exact(&self, row: Row, [keys, values]: &[Vec<f32>; 2]) -> Vec<f64> {
        let Heads { heads, kv_heads, head_dim, window, .. } = self.setting.heads;
        let first = window.map_or(0, |window| (row.position + 1).saturating_sub(window));
        let bytes = &self.turned[row.sequence][row.position * self.row_bytes()..][..self.row_bytes()];
        let qkv = from_bytes(bytes, self.setting.kind.0);
        let head = |numbers: &[f32], position: usize, kv_head: usize| -> Vec<f64> {
            let place = self.place(Row { position, ..row }, kv_head);
            numbers[place * head_dim..][..head_dim].iter().map(|&number| f64::from(number)).collect()
        };
        let of_head = |index: usize| {
            let (query, kv_head) = (&qkv[index * head_dim..][..head_dim], index / (heads / kv_heads));
            let dot = |key: Vec<f64>| query.iter().zip(key).map(|(&a, b)| f64::from(a) * b).sum::<f64>();
            let scores: Vec<f64> = (first..=row.position)
                .map(|position| dot(head(keys, position, kv_head)) / (head_dim as f64).sqrt())
                .collect();
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut out = vec![0.0; head_dim];
            for (position, weight) in (first..=row.position).zip(weights) {
                let value = head(values, position, kv_head);
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / total * value);
            }
            out
        };
        (0..heads).flat_map(of_head).collect()
    }

    /// Fails unless rows of attention are what they are in double precision.
    #[track_caller]
    pub(super) fn check(&self, rows: &[Row], out: &[u8]) {
        let ((element, _), stored) = (self.setting.kind, self.stored());
        for (row, out) in rows.iter().zip(out.chunks(self.out_bytes())) {
            let (out, exact) = (from_bytes(out, element), self.exact(*row, &stored));
            let width = self.setting.heads.head_dim;
            assert_rows_close(&out, &exact, width, tolerance(element), &format!("{row:?} of {:?}", self.setting));
        }
    }
}

/// Blocks in no order, the last sequence's the one behind all others; the tables begin somewhere.
fn tables(lengths: &[usize], block_size: usize, blocks: usize) -> (Vec<i32>, Vec<usize>) {
    let order = noise(blocks, 7);
    let mut shuffled: Vec<usize> = (0..blocks).collect();
    shuffled.sort_by(|&a, &b| order[a].total_cmp(&order[b]));
    let (mut tables, mut offsets) = (vec![i32::MAX; 3], Vec::new());
    let (_, others) = lengths.split_last().unwrap();
    for length in others {
        offsets.push(tables.len());
        tables.extend(shuffled.drain(..length.div_ceil(block_size)).map(|block| block as i32));
    }
    offsets.push(tables.len());
    tables.push(blocks as i32);
    (tables, offsets)
}

/// What a step tells of its rows.
struct Step {
    positions: Buffer<i32>,
    slots: Buffer<i32>,
    table_offsets: Buffer<i32>,
    tables: Buffer<i32>,
    tiles: Buffer<i32>,
}

impl Step {
    fn new(sequences: &Sequences, rows: &[Row], tiles: &[i32]) -> Self {
        let of_rows = |number: &dyn Fn(Row) -> usize| {
            Buffer::of(&sequences.gpu, &rows.iter().map(|&row| number(row) as i32).collect::<Vec<_>>()).unwrap()
        };
        Self {
            positions: of_rows(&|row| row.position),
            slots: of_rows(&|row| sequences.slot(row)),
            table_offsets: of_rows(&|row| sequences.offsets[row.sequence]),
            tables: Buffer::of(&sequences.gpu, &sequences.tables).unwrap(),
            tiles: Buffer::of(&sequences.gpu, tiles).unwrap(),
        }
    }

    fn places(&self) -> Places {
        Places {
            positions: self.positions.at(0),
            slots: self.slots.at(0),
            table_offsets: self.table_offsets.at(0),
            tables: self.tables.at(0),
            tiles: self.tiles.at(0),
        }
    }
}
