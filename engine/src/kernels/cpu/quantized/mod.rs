//! Matrix products with quantised weights: Q4_K, Q5_K, Q6_K and Q8_0 blocks times rows of signed bytes.
//!
//! At load, blocks are laid out anew in [tiles](format) of 16 outputs, in as many bytes as the file has; the
//! file's own pages are let go. At a step, rows are [quantised](rows) once for all matrices they meet, and each
//! thread goes through its share of the tiles.
//!
//! Sums over a part of a block are exact integers; the floats between parts and blocks are added in one order.
//! So an output has the same bits whatever rows are computed with it, on every instruction set with fused
//! multiply-add.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod format;
mod lanes;
mod minimums;
#[cfg(target_arch = "aarch64")]
mod neon;
mod q6k;
mod q8_0;
mod rows;
mod scalar;
#[cfg(test)]
mod tests;
mod tiles;

pub(crate) use lanes::ByteSimd;
pub(crate) use rows::{QuantizedRows, RowBlocks};
pub(crate) use tiles::Tiles;
