//! Q4_K and Q5_K: super-blocks of 256 in eight parts, each with a 6-bit scale and a 6-bit minimum.
//!
//! A weight is `d · scale · quant - dmin · minimum`. As the minimum is the same over a part, it meets the
//! part's sum of activations; that product is made in integers, two parts at once.
//!
//! A tile holds, for 16 outputs: nibbles (2048 bytes; per part four groups of low and high nibbles), for Q5_K
//! the fifth bits (512; per part one group, bit t for the t-th four inputs), scales and minimums (192), d, dmin.
#![expect(unsafe_code, reason = "tiles and activations are read through pointers")]
#![expect(clippy::needless_range_loop, reason = "indices name rows and parts")]

use super::{
    format::{Column, Format, HALVES, TILE, fetch_ahead, fetch_all_ahead, put_half, put_word, words},
    lanes::ByteLanes,
    rows::Group,
};

const PARTS: usize = 8;
const NIBBLES: usize = 2048;
const SCALES: usize = 192;

/// 4.5 bits per weight.
pub(super) struct Q4K;
/// 5.5 bits per weight.
pub(super) struct Q5K;

/// What the two differ in.
trait Quants {
    /// Bytes of fifth bits in a tile.
    const HIGH: usize;

    /// Puts a block's quants in their place.
    fn pack_quants(quants: &[u8], output: usize, tile: &mut [u8]);

    /// The two groups of quants at `pair` (0..4) of `part`, for the outputs from `first` on.
    ///
    /// # Safety
    /// `tile` is one; the CPU has `L`'s instruction set.
    unsafe fn pair<L: ByteLanes>(tile: *const u8, part: usize, pair: usize, first: usize) -> (L::Bytes, L::Bytes);
}

impl Quants for Q4K {
    const HIGH: usize = 0;

    fn pack_quants(quants: &[u8], output: usize, tile: &mut [u8]) {
        for (chunk, quants) in quants.chunks_exact(32).enumerate() {
            let words = words::<8>(quants);
            for pair in 0..4 {
                let (a, b) = (words[2 * pair], words[2 * pair + 1]);
                let low = a & 0x0f0f_0f0f | (b & 0x0f0f_0f0f) << 4;
                let high = a >> 4 & 0x0f0f_0f0f | b & 0xf0f0_f0f0;
                put_word(tile, 2 * chunk * 4 + pair, output, low);
                put_word(tile, (2 * chunk + 1) * 4 + pair, output, high);
            }
        }
    }

    #[inline(always)]
    unsafe fn pair<L: ByteLanes>(tile: *const u8, part: usize, pair: usize, first: usize) -> (L::Bytes, L::Bytes) {
        // SAFETY: within the tile's nibbles.
        unsafe {
            let nibbles = L::load(tile.add((part * 4 + pair) * 4 * TILE + 4 * first));
            (L::and(nibbles, 15), L::and(L::right::<4>(nibbles), 15))
        }
    }
}

impl Quants for Q5K {
    const HIGH: usize = 512;

    fn pack_quants(quants: &[u8], output: usize, tile: &mut [u8]) {
        let (high, nibbles) = quants.split_at(32);
        Q4K::pack_quants(nibbles, output, tile);
        let high = words::<8>(high);
        for part in 0..PARTS {
            let bit = |t: usize| (high[t] >> part & 0x0101_0101) << t;
            put_word(&mut tile[NIBBLES..], part, output, (0..8).map(bit).fold(0, |all, bit| all | bit));
        }
    }

    #[inline(always)]
    unsafe fn pair<L: ByteLanes>(tile: *const u8, part: usize, pair: usize, first: usize) -> (L::Bytes, L::Bytes) {
        // SAFETY: within the tile's nibbles and fifth bits.
        unsafe {
            let (low, high) = Q4K::pair::<L>(tile, part, pair, first);
            let bits = L::load(tile.add(NIBBLES + part * 4 * TILE + 4 * first));
            let (a, b) = match pair {
                0 => (L::left::<4>(bits), L::left::<3>(bits)),
                1 => (L::left::<2>(bits), L::left::<1>(bits)),
                2 => (bits, L::right::<1>(bits)),
                _ => (L::right::<2>(bits), L::right::<3>(bits)),
            };
            (L::or(low, L::and(a, 16)), L::or(high, L::and(b, 16)))
        }
    }
}

impl<Q: Quants> Format for Q {
    const INPUTS: usize = 256;
    const BYTES: usize = (NIBBLES + Q::HIGH + SCALES + 2 * HALVES) / TILE;

    fn pack(blocks: [&[u8]; TILE], tile: &mut [u8]) {
        let mut unpacked = [0; 4 * 64];
        let scales = NIBBLES + Q::HIGH;
        for (output, block) in blocks.into_iter().enumerate() {
            Q::pack_quants(&block[16..], output, tile);
            unpack_block_scales(&block[4..16], output, &mut unpacked);
            put_half(tile, scales + SCALES, output, &block[..2]);
            put_half(tile, scales + SCALES + HALVES, output, &block[2..4]);
        }
        pack_tile_scales(&unpacked, &mut tile[scales..scales + SCALES]);
    }

    #[inline(always)]
    unsafe fn sums<L: ByteLanes, const M: usize>(column: Column, first: usize, group: Group) -> [L::Floats; M] {
        // SAFETY: all reads are within `column`'s tiles and `group`'s blocks.
        unsafe {
            let mut sums = [L::zero(); M];
            for block in 0..column.blocks {
                let tile = column.tiles.add(block * Q::BYTES * TILE);
                fetch_all_ahead(tile.add(NIBBLES), Q::BYTES * TILE - NIBBLES);
                let scales = unpack_tile_scales(tile.add(NIBBLES + Q::HIGH));
                let quants = group.quants.add(block * 64 * M);
                let mut scaled = [L::zero(); M];
                for part in 0..PARTS {
                    let mut dots = [L::splat(0); M];
                    for pair in 0..4 {
                        fetch_ahead(tile.add((part * 4 + pair) * 4 * TILE));
                        let (low, high) = Q::pair::<L>(tile, part, pair, first);
                        let quants = quants.add((part * 8 + pair * 2) * M);
                        for m in 0..M {
                            dots[m] = L::dot(dots[m], low, quants.add(m).read());
                        }
                        for m in 0..M {
                            dots[m] = L::dot(dots[m], high, quants.add(M + m).read());
                        }
                    }
                    let scale = L::load_u8(scales.as_ptr().add(part * TILE + first));
                    for m in 0..M {
                        scaled[m] = L::multiply_add(L::to_floats(dots[m]), scale, scaled[m]);
                    }
                }
                let mut minimums = [L::splat(0); M];
                for pair in 0..PARTS / 2 {
                    let both = L::load_pairs(scales.as_ptr().add(PARTS * TILE + 2 * (pair * TILE + first)));
                    for m in 0..M {
                        let part_sums = group.pair_sums.add((block * PARTS / 2 + pair) * M + m).read();
                        minimums[m] = L::dot_pairs(minimums[m], both, part_sums);
                    }
                }
                let halves = tile.add(NIBBLES + Q::HIGH + SCALES + 2 * first);
                let (d, dmin) = (L::load_f16(halves), L::load_f16(halves.add(HALVES)));
                for m in 0..M {
                    let whole = L::multiply(d, scaled[m]);
                    let whole = L::multiply_subtract(dmin, L::to_floats(minimums[m]), whole);
                    let scale = L::splat_float(group.scales.add(block * M + m).read());
                    sums[m] = L::multiply_add(whole, scale, sums[m]);
                }
            }
            sums
        }
    }
}

/// The eight scales and minimums of a block, as ggml packs them in 12 bytes, into the two halves of `to`:
/// scales as `[part][output]`, minimums as `[part / 2][output][part % 2]`.
fn unpack_block_scales(packed: &[u8], output: usize, to: &mut [u8; 256]) {
    for part in 0..PARTS {
        let (scale, minimum) = if part < 4 {
            (packed[part] & 63, packed[part + 4] & 63)
        } else {
            let (low, high) = (packed[part + 4], part - 4);
            (low & 15 | packed[high] >> 6 << 4, low >> 4 | packed[high + 4] >> 6 << 4)
        };
        to[part * TILE + output] = scale;
        to[PARTS * TILE + part / 2 * 2 * TILE + 2 * output + part % 2] = minimum;
    }
}

/// Four rows of 64 six-bit numbers in three: low nibbles of rows 0 and 1, of rows 2 and 3, and what is above.
fn pack_tile_scales(from: &[u8; 256], to: &mut [u8]) {
    for i in 0..64 {
        let row = |row: usize| from[row * 64 + i];
        to[i] = row(0) & 15 | row(1) << 4;
        to[64 + i] = row(2) & 15 | row(3) << 4;
        to[128 + i] = row(0) >> 4 | row(1) >> 4 << 2 | row(2) >> 4 << 4 | row(3) >> 4 << 6;
    }
}

/// The reverse.
///
/// # Safety
/// `from` has 192 bytes.
#[inline(always)]
unsafe fn unpack_tile_scales(from: *const u8) -> [u8; 256] {
    // SAFETY: by this function's contract; bytes have no alignment.
    let from = unsafe { &*from.cast::<[[u8; 64]; 3]>() };
    let mut to = [0; 256];
    for i in 0..64 {
        let (a, b, high) = (from[0][i], from[1][i], from[2][i]);
        to[i] = a & 15 | high << 4 & 0x30;
        to[64 + i] = a >> 4 | high << 2 & 0x30;
        to[128 + i] = b & 15 | high & 0x30;
        to[192 + i] = b >> 4 | high >> 2 & 0x30;
    }
    to
}
