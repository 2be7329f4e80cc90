//! Q8_0: blocks of 32 signed bytes with one scale.
//!
//! A tile holds, for 16 outputs: eight groups of quants (512 bytes) and the scales.
#![expect(unsafe_code, reason = "tiles and activations are read through pointers")]
#![expect(clippy::needless_range_loop, reason = "indices name rows")]

use super::{
    format::{Column, Format, HALVES, TILE, fetch_ahead, put_half, put_word, words},
    lanes::ByteLanes,
    rows::Group,
};

const QUANTS: usize = 512;

/// 8.5 bits per weight.
pub(super) struct Q8_0;

impl Format for Q8_0 {
    const INPUTS: usize = 32;
    const BYTES: usize = (QUANTS + HALVES) / TILE;

    fn pack(blocks: [&[u8]; TILE], tile: &mut [u8]) {
        for (output, block) in blocks.into_iter().enumerate() {
            for (group, word) in words::<8>(&block[2..]).into_iter().enumerate() {
                put_word(tile, group, output, word);
            }
            put_half(tile, QUANTS, output, block);
        }
    }

    #[inline(always)]
    unsafe fn sums<L: ByteLanes, const M: usize>(column: Column, first: usize, group: Group) -> [L::Floats; M] {
        // SAFETY: all reads are within `column`'s tiles and `group`'s blocks.
        unsafe {
            let mut sums = [L::zero(); M];
            for block in 0..column.blocks {
                let tile = column.tiles.add(block * Self::BYTES * TILE);
                let quants = group.quants.add(block * 8 * M);
                let mut dots = [L::splat(0); M];
                for m in 0..M {
                    dots[m] = L::begin_signed(group.corrections.add(block * M + m).read());
                }
                for four in 0..8 {
                    let weights = tile.add(four * 4 * TILE);
                    fetch_ahead(weights);
                    let weights = L::load(weights.add(4 * first));
                    for m in 0..M {
                        dots[m] = L::dot_signed(dots[m], weights, quants.add(four * M + m).read());
                    }
                }
                fetch_ahead(tile.add(QUANTS));
                let d = L::load_f16(tile.add(QUANTS + 2 * first));
                for m in 0..M {
                    let scale = L::splat_float(group.scales.add(block * M + m).read());
                    sums[m] = L::multiply_add(L::multiply(L::to_floats(dots[m]), d), scale, sums[m]);
                }
            }
            sums
        }
    }
}
