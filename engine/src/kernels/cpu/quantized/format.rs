//! What a block format must bring: how its blocks are laid out in tiles, and the product over one tile column.
//!
//! A tile is one block of each of 16 consecutive outputs, in as many bytes as the file has for them. Its quants
//! lie so that a register loads, for each of its outputs, the 4 bytes that meet 4 consecutive inputs.
#![expect(unsafe_code, reason = "kernels read through pointers")]

use half::f16;

use super::{super::lanes::prefetch, lanes::ByteLanes, rows::Group};

/// Outputs per tile.
pub(super) const TILE: usize = 16;

/// How far ahead of the product weights are fetched from memory.
const AHEAD: usize = 6144;

/// A block format.
pub(super) trait Format {
    /// Inputs per block.
    const INPUTS: usize;
    /// Bytes per block.
    const BYTES: usize;

    /// Lays out one block of each output, as they are in the file, as a tile.
    fn pack(blocks: [&[u8]; TILE], tile: &mut [u8]);

    /// The sums of [`ByteLanes::LANES`] outputs, from `first` on in the tile, for `M` rows.
    ///
    /// # Safety
    /// `tiles` has `blocks` tiles, `group` that many blocks of `M` rows; the CPU has `L`'s instruction set.
    unsafe fn sums<L: ByteLanes, const M: usize>(column: Column, first: usize, group: Group) -> [L::Floats; M];
}

/// The tiles of 16 outputs over all inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) tiles: *const u8,
    pub(super) blocks: usize,
}

/// Fetches what comes later from where `weights` are: a core's own prefetchers keep too little in flight.
#[inline(always)]
pub(super) fn fetch_ahead(weights: *const u8) {
    prefetch(weights.wrapping_add(AHEAD));
}

/// The same for all of `bytes` from there on.
#[inline(always)]
pub(super) fn fetch_all_ahead(weights: *const u8, bytes: usize) {
    (0..bytes).step_by(64).for_each(|line| fetch_ahead(weights.wrapping_add(line)));
}

/// The little-endian words of `bytes`.
pub(super) fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|i| u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]))
}

/// Writes an output's word into the register-sized group of words at `group`.
pub(super) fn put_word(tile: &mut [u8], group: usize, output: usize, word: u32) {
    tile[4 * (group * TILE + output)..][..4].copy_from_slice(&word.to_le_bytes());
}

/// Writes an output's half-precision number into the row of them at `at`.
pub(super) fn put_half(tile: &mut [u8], at: usize, output: usize, half: &[u8]) {
    tile[at + 2 * output..][..2].copy_from_slice(&half[..2]);
}

/// Bytes of 16 half-precision numbers.
pub(super) const HALVES: usize = TILE * size_of::<f16>();
