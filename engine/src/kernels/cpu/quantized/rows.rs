//! Rows of activations as signed bytes, laid out for the products.
//!
//! Each block of a row has its own scale, `max |x| / 127`, so a row's bytes depend on nothing but the row. Rows
//! go together in groups of up to [`ByteLanes::ROWS`], in which the four bytes that meet one group of weights lie
//! side by side: `[group][inputs / 4][row][4]`.
#![expect(unsafe_code, reason = "tasks write disjoint places of shared buffers")]

use std::ops::Range;

use super::{
    super::{
        signed_bytes::{scale_of, to_bytes},
        threads::Threads,
    },
    lanes::{ByteLanes, ByteSimd, dispatch_bytes},
};

/// Blocks of a row below which quantising is not worth waking other threads for.
const SERIAL_BLOCKS: usize = 64;

/// What a block of activations carries, which follows from the weights it will meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowBlocks {
    /// 256 inputs, with their sums over 16 and over 32: for the K-quants.
    K,
    /// 32 inputs, with their sum: for Q8_0.
    ThirtyTwo,
}

impl RowBlocks {
    /// Inputs per block.
    fn inputs(self) -> usize {
        match self {
            Self::K => 256,
            Self::ThirtyTwo => 32,
        }
    }

    /// Corrections per block.
    fn corrections(self) -> usize {
        match self {
            Self::K => 16,
            Self::ThirtyTwo => 1,
        }
    }

    /// Words of sums per block.
    fn pair_sums(self) -> usize {
        match self {
            Self::K => 4,
            Self::ThirtyTwo => 0,
        }
    }
}

/// Rows of one step, quantised.
#[derive(Debug)]
pub(crate) struct QuantizedRows {
    blocks: RowBlocks,
    rows: usize,
    inputs: usize,
    /// Groups of at most this many rows.
    most: usize,
    quants: Vec<i32>,
    scales: Vec<f32>,
    pair_sums: Vec<i32>,
    corrections: Vec<i32>,
}

/// A group's rows; every array is `[block][…][row]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// `[block][inputs / 4][row]`: four signed bytes.
    pub(super) quants: *const i32,
    /// `[block][row]`.
    pub(super) scales: *const f32,
    /// `[block][pair][row]`: the sums over two neighbouring parts of 32, as two i16.
    pub(super) pair_sums: *const i32,
    /// `[block][part][row]`: what a sum of products with offset weights begins with.
    pub(super) corrections: *const i32,
}

impl QuantizedRows {
    /// No rows yet.
    pub(crate) fn new(blocks: RowBlocks) -> Self {
        Self {
            blocks,
            rows: 0,
            inputs: 0,
            most: 1,
            quants: Vec::new(),
            scales: Vec::new(),
            pair_sums: Vec::new(),
            corrections: Vec::new(),
        }
    }

    /// Takes the rows of `x`, each of `inputs` numbers, which are whole blocks.
    pub(crate) fn quantize(&mut self, threads: &Threads, simd: ByteSimd, x: &[f32], inputs: usize) {
        let per_row = inputs / self.blocks.inputs();
        assert!(per_row * self.blocks.inputs() == inputs && x.len().is_multiple_of(inputs));
        (self.rows, self.inputs) = (x.len() / inputs, inputs);
        let blocks = self.rows * per_row;
        self.quants.resize(x.len() / 4, 0);
        self.scales.resize(blocks, 0.0);
        self.pair_sums.resize(blocks * self.blocks.pair_sums(), 0);
        self.corrections.resize(blocks * self.blocks.corrections(), 0);
        self.most = simd.rows();
        let target = Target {
            rows: self,
            x,
            quants: self.quants.as_ptr().cast_mut(),
            scales: self.scales.as_ptr().cast_mut(),
            pair_sums: self.pair_sums.as_ptr().cast_mut(),
            corrections: self.corrections.as_ptr().cast_mut(),
        };
        let (target, kind) = (&target, self.blocks);
        threads.ranges(blocks, SERIAL_BLOCKS, |range| match kind {
            // SAFETY: the buffers were made long enough, and tasks get disjoint blocks.
            RowBlocks::K => dispatch_bytes!(simd, quantize_k, [], (target: &Target<'_>, range: Range<usize>)),
            RowBlocks::ThirtyTwo => {
                dispatch_bytes!(simd, quantize_32, [], (target: &Target<'_>, range: Range<usize>))
            }
        });
    }

    /// The groups: first row and number of rows, as even as can be.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, count) = (self.rows, self.rows.div_ceil(self.most));
        let first = move |group: usize| group * rows / count;
        (0..count).map(move |group| (first(group), first(group + 1) - first(group)))
    }

    /// The group that begins at `first`.
    pub(super) fn group(&self, first: usize) -> Group {
        let block = first * (self.inputs / self.blocks.inputs());
        Group {
            quants: self.quants[first * self.inputs / 4..].as_ptr(),
            scales: self.scales[block..].as_ptr(),
            pair_sums: self.pair_sums[block * self.blocks.pair_sums()..].as_ptr(),
            corrections: self.corrections[block * self.blocks.corrections()..].as_ptr(),
        }
    }

    /// Numbers per row.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// The first row of a row's group, and how many the group has.
    fn group_of(&self, row: usize) -> (usize, usize) {
        let count = self.rows.div_ceil(self.most);
        let mut group = row * count / self.rows;
        // Rounding down may name the group before.
        if (group + 1) * self.rows / count <= row {
            group += 1;
        }
        let (first, end) = (group * self.rows / count, (group + 1) * self.rows / count);
        (first, end - first)
    }
}

/// Where quantised blocks go.
struct Target<'a> {
    rows: &'a QuantizedRows,
    x: &'a [f32],
    quants: *mut i32,
    scales: *mut f32,
    pair_sums: *mut i32,
    corrections: *mut i32,
}

// SAFETY: tasks write the places of disjoint blocks.
unsafe impl Sync for Target<'_> {}

impl Target<'_> {
    /// A block's row within its group, the group's rows, and the number that the block has when the group's
    /// blocks are counted `[block]` first: its places are `place · rows + row`.
    fn place(&self, block: usize) -> (usize, usize, usize) {
        let per_row = self.rows.inputs / self.rows.blocks.inputs();
        let (row, within) = (block / per_row, block % per_row);
        let (first, rows) = self.rows.group_of(row);
        (row - first, rows, first * per_row + within * rows)
    }
}

/// # Safety
/// The CPU has `L`'s instruction set; no other task has these blocks.
#[inline(always)]
unsafe fn quantize_k<L: ByteLanes>(target: &Target<'_>, blocks: Range<usize>) {
    for block in blocks {
        let mut quants = [0; 256];
        let scale = quantize_block(&target.x[block * 256..][..256], &mut quants);
        let sums: [i32; 16] = std::array::from_fn(|part| sum_of(&quants[part * 16..][..16]));
        let (row, rows, place) = target.place(block);
        // SAFETY: the places of this block alone.
        unsafe {
            put_quants(&quants, target.quants.add(place * 64 + row), rows);
            target.scales.add(place + row).write(scale);
            for (part, sum) in sums.iter().enumerate() {
                target.corrections.add(place * 16 + part * rows + row).write(-32 * sum);
            }
            for (pair, sums) in sums.chunks_exact(4).enumerate() {
                let both = (sums[0] + sums[1]) & 0xffff | (sums[2] + sums[3]) << 16;
                target.pair_sums.add(place * 4 + pair * rows + row).write(both);
            }
        }
    }
}

/// # Safety
/// The CPU has `L`'s instruction set; no other task has these blocks.
#[inline(always)]
unsafe fn quantize_32<L: ByteLanes>(target: &Target<'_>, blocks: Range<usize>) {
    for block in blocks {
        let mut quants = [0; 32];
        let scale = quantize_block(&target.x[block * 32..][..32], &mut quants);
        let (row, rows, place) = target.place(block);
        // SAFETY: the places of this block alone.
        unsafe {
            put_quants(&quants, target.quants.add(place * 8 + row), rows);
            target.scales.add(place + row).write(scale);
            target.corrections.add(place + row).write(-128 * sum_of(&quants));
        }
    }
}

#[inline(always)]
fn sum_of(quants: &[i8]) -> i32 {
    quants.iter().map(|&quant| i32::from(quant)).sum()
}

/// # Safety
/// `to` is good for every `rows`-th word.
#[inline(always)]
unsafe fn put_quants<const N: usize>(quants: &[i8; N], to: *mut i32, rows: usize) {
    for (index, four) in quants.chunks_exact(4).enumerate() {
        let word = i32::from_le_bytes([four[0], four[1], four[2], four[3]].map(i8::cast_unsigned));
        // SAFETY: by this function's contract.
        unsafe { to.add(index * rows).write(word) };
    }
}

/// The bytes of a block, and its scale.
#[inline(always)]
fn quantize_block<const N: usize>(x: &[f32], quants: &mut [i8; N]) -> f32 {
    let (scale, inverse) = scale_of(&x[..N]);
    to_bytes(&x[..N], inverse, quants);
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_the_group_that_groups_names() {
        for rows in 0..70 {
            for most in 1..12 {
                let all = QuantizedRows { rows, most, ..QuantizedRows::new(RowBlocks::K) };
                let groups: Vec<_> = all.groups().collect();
                assert!(groups.iter().all(|&(_, count)| (1..=most).contains(&count)), "{rows} {most}");
                for row in 0..rows {
                    let (first, count) = all.group_of(row);
                    assert!(groups.contains(&(first, count)) && (first..first + count).contains(&row));
                }
            }
        }
    }
}
