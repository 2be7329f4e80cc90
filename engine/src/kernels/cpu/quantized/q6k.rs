//! Q6_K: super-blocks of 256 in sixteen parts, each with a signed 8-bit scale.
//!
//! A weight is `d · scale · (quant - 32)`; sums begin with -32 times the sum of their activations.
//!
//! A tile holds, for 16 outputs: low nibbles as in Q4_K (2048 bytes), the two bits above (1024; per 32 inputs two
//! groups, each of four inputs in two bits), scales as `[part][output]` (256), d.
#![expect(unsafe_code, reason = "tiles and activations are read through pointers")]
#![expect(clippy::needless_range_loop, reason = "indices name rows and parts")]

use super::{
    format::{Column, Format, HALVES, TILE, fetch_ahead, fetch_all_ahead, put_half, put_word, words},
    lanes::ByteLanes,
    rows::Group,
};

const PARTS: usize = 16;
const NIBBLES: usize = 2048;
const HIGH: usize = 1024;
const SCALES: usize = PARTS * TILE;

/// 6.5625 bits per weight.
pub(super) struct Q6K;

impl Format for Q6K {
    const INPUTS: usize = 256;
    const BYTES: usize = (NIBBLES + HIGH + SCALES + HALVES) / TILE;

    fn pack(blocks: [&[u8]; TILE], tile: &mut [u8]) {
        for (output, block) in blocks.into_iter().enumerate() {
            for half in 0..2 {
                let low = words::<16>(&block[64 * half..]);
                let high = words::<8>(&block[128 + 32 * half..]);
                for quarter in 0..4 {
                    let thirty_two = 4 * half + quarter;
                    let nibbles = |t: usize| low[8 * (quarter % 2) + t] >> (4 * (quarter / 2)) & 0x0f0f_0f0f;
                    let bits = |t: usize| (high[t] >> (2 * quarter) & 0x0303_0303) << (2 * (t % 4));
                    for pair in 0..4 {
                        let word = nibbles(2 * pair) | nibbles(2 * pair + 1) << 4;
                        put_word(tile, thirty_two * 4 + pair, output, word);
                    }
                    for four in 0..2 {
                        let word = (4 * four..4 * four + 4).map(bits).fold(0, |all, bits| all | bits);
                        put_word(&mut tile[NIBBLES..], thirty_two * 2 + four, output, word);
                    }
                }
            }
            for part in 0..PARTS {
                tile[NIBBLES + HIGH + part * TILE + output] = block[192 + part];
            }
            put_half(tile, NIBBLES + HIGH + SCALES, output, &block[208..]);
        }
    }

    #[inline(always)]
    unsafe fn sums<L: ByteLanes, const M: usize>(column: Column, first: usize, group: Group) -> [L::Floats; M] {
        // SAFETY: all reads are within `column`'s tiles and `group`'s blocks.
        unsafe {
            let mut sums = [L::zero(); M];
            for block in 0..column.blocks {
                let tile = column.tiles.add(block * Self::BYTES * TILE);
                let quants = group.quants.add(block * 64 * M);
                fetch_all_ahead(tile.add(NIBBLES + HIGH), SCALES + HALVES);
                let mut scaled = [L::zero(); M];
                for part in 0..PARTS {
                    let mut dots = [L::splat(0); M];
                    for m in 0..M {
                        dots[m] = L::splat(group.corrections.add((block * PARTS + part) * M + m).read());
                    }
                    fetch_ahead(tile.add(NIBBLES + part * 4 * TILE));
                    for pair in 0..2 {
                        fetch_ahead(tile.add((part * 2 + pair) * 4 * TILE));
                        let (low, high) = quants_of::<L>(tile, part, pair, first);
                        let quants = quants.add((part * 4 + pair * 2) * M);
                        for m in 0..M {
                            dots[m] = L::dot(dots[m], low, quants.add(m).read());
                        }
                        for m in 0..M {
                            dots[m] = L::dot(dots[m], high, quants.add(M + m).read());
                        }
                    }
                    let scale = L::load_i8(tile.add(NIBBLES + HIGH + part * TILE + first));
                    for m in 0..M {
                        scaled[m] = L::multiply_add(L::to_floats(dots[m]), scale, scaled[m]);
                    }
                }
                let d = L::load_f16(tile.add(NIBBLES + HIGH + SCALES + 2 * first));
                for m in 0..M {
                    let scale = L::splat_float(group.scales.add(block * M + m).read());
                    sums[m] = L::multiply_add(L::multiply(d, scaled[m]), scale, sums[m]);
                }
            }
            sums
        }
    }
}

/// The two groups of quants at `pair` (0 or 1) of `part`.
///
/// # Safety
/// `tile` is one; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn quants_of<L: ByteLanes>(tile: *const u8, part: usize, pair: usize, first: usize) -> (L::Bytes, L::Bytes) {
    // SAFETY: within the tile's nibbles and high bits.
    unsafe {
        let nibbles = L::load(tile.add((part * 2 + pair) * 4 * TILE + 4 * first));
        let bits = L::load(tile.add(NIBBLES + part * 4 * TILE + 4 * first));
        let (a, b) = match pair {
            0 => (L::left::<4>(bits), L::left::<2>(bits)),
            _ => (bits, L::right::<2>(bits)),
        };
        let low = L::or(L::and(nibbles, 15), L::and(a, 0x30));
        (low, L::or(L::and(L::right::<4>(nibbles), 15), L::and(b, 0x30)))
    }
}
