//! Random numbers straight into the bytes of each storage, at memory speed.
//!
//! Quantised blocks are made as bytes: scales are fixed or drawn within a range that keeps every number
//! finite, and chosen so that the numbers have mean 0 and a deviation near [`DEVIATION`].

use half::{bf16, f16};

use super::Storage;

const DEVIATION: f32 = 0.02;

/// SplitMix64 (Steele, Lea and Flood 2014): one addition and a mix per 64 bits.
#[derive(Debug)]
pub(crate) struct Random(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// An independent stream for each pair.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut seeds = Self(seed);
        let base = seeds.next();
        Self(base ^ Self(stream).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills `out`.
    pub(crate) fn bytes(&mut self, out: &mut [u8]) {
        let mut chunks = out.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        let rest = chunks.into_remainder();
        let last = self.next().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Fills whole blocks of one storage.
#[derive(Debug)]
pub(super) struct Fill {
    storage: Storage,
    /// The half-precision number that each 16 random bits stand for.
    halves: Vec<[u8; 2]>,
}

impl Fill {
    pub(super) fn new(storage: Storage) -> Self {
        let halves = match storage {
            Storage::Bf16 => uniform(|value| bf16::from_f32(value).to_le_bytes()),
            Storage::F16 => uniform(|value| f16::from_f32(value).to_le_bytes()),
            _ => Vec::new(),
        };
        Self { storage, halves }
    }

    /// Fills `out`, a whole number of blocks.
    pub(super) fn fill(&self, out: &mut [u8], random: &mut Random) {
        match self.storage {
            Storage::Ones => out.chunks_exact_mut(4).for_each(|one| one.copy_from_slice(&1f32.to_le_bytes())),
            Storage::Bf16 | Storage::F16 => {
                random.bytes(out);
                for half in out.chunks_exact_mut(2) {
                    let index = u16::from_le_bytes([half[0], half[1]]);
                    half.copy_from_slice(&self.halves[usize::from(index)]);
                }
            }
            Storage::Q8_0 => out.chunks_exact_mut(34).for_each(|block| q8_0(block, random)),
            Storage::Q4K => out.chunks_exact_mut(144).for_each(|block| q4k(block, random)),
            Storage::Q6K => out.chunks_exact_mut(210).for_each(|block| q6k(block, random)),
        }
    }
}

/// Evenly spread numbers around 0, one for each 16 bits.
fn uniform(encode: impl Fn(f32) -> [u8; 2]) -> Vec<[u8; 2]> {
    let step = DEVIATION * 12f32.sqrt() / 65_536.0;
    (0..65_536).map(|index| encode((index as f32 - 32_767.5) * step)).collect()
}

/// A scale, then 32 signed bytes.
fn q8_0(block: &mut [u8], random: &mut Random) {
    const QUANT_DEVIATION: f32 = 73.3;
    let (scale, quants) = block.split_at_mut(2);
    scale.copy_from_slice(&f16::from_f32(DEVIATION / QUANT_DEVIATION).to_le_bytes());
    random.bytes(quants);
    // -128 has no opposite: without it the mean is 0.
    quants.iter_mut().filter(|quant| **quant == 0x80).for_each(|quant| *quant = 0);
}

/// Two scales, eight pairs of 6-bit scale and minimum, 256 nibbles. A number is
/// `d · scale · nibble - dmin · minimum`; equal scale and minimum and `dmin = 7.5 d` centre it on 0.
fn q4k(block: &mut [u8], random: &mut Random) {
    const NIBBLE_DEVIATION: f32 = 4.61;
    let d = DEVIATION / (NIBBLE_DEVIATION * SCALE_MEAN);
    let (scales, quants) = block.split_at_mut(16);
    scales[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    scales[2..4].copy_from_slice(&f16::from_f32(7.5 * d).to_le_bytes());
    let drawn = random.next().to_le_bytes().map(|byte| 32 | (byte & 31));
    for index in 0..4 {
        let (low, high) = (drawn[index], drawn[index + 4]);
        scales[4 + index] = low | (high >> 4) << 6;
        scales[8 + index] = low | (high >> 4) << 6;
        scales[12 + index] = (high & 15) | (high & 15) << 4;
    }
    random.bytes(quants);
}

/// 256 numbers of 6 bits in two parts, 16 signed scales, one scale of all. The numbers lie in -32..=31;
/// scales of either sign make the mean 0.
fn q6k(block: &mut [u8], random: &mut Random) {
    const QUANT_DEVIATION: f32 = 18.5;
    let (quants, rest) = block.split_at_mut(192);
    let (scales, d) = rest.split_at_mut(16);
    random.bytes(quants);
    random.bytes(scales);
    for scale in scales {
        let magnitude = (32 | (*scale & 31)).cast_signed();
        *scale = if *scale & 0x80 == 0 { magnitude } else { -magnitude }.cast_unsigned();
    }
    d.copy_from_slice(&f16::from_f32(DEVIATION / (QUANT_DEVIATION * SCALE_MEAN)).to_le_bytes());
}

/// Root mean square of a scale drawn from 32..=63.
const SCALE_MEAN: f32 = 48.4;
