//! AVX-512's products of bf16 pairs: twice the numbers per instruction, and nothing to widen.
#![expect(unsafe_code, reason = "SIMD intrinsics and unaligned loads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the trait states the contract")]

use std::{arch::x86_64::*, mem::transmute, ops::Range, sync::OnceLock};

use half::bf16;

use super::{
    Dot, Product, columns_of,
    peak::{OPERAND, Sum, sum_of},
};

/// Whether this CPU has them.
pub(super) fn detected() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    *DETECTED.get_or_init(|| is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f"))
}

/// # Safety
/// As [`columns_of`]; they were detected.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn product(product: &Product<'_, u16>, columns: Range<usize>) {
    columns_of::<Pairs>(product, columns);
}

/// # Safety
/// They were detected.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn peak(rounds: usize, operand: &[u8; OPERAND], out: &mut Sum) {
    sum_of::<Pairs>(rounds, operand, out);
}

struct Pairs;

impl Dot for Pairs {
    type X = u16;
    type Row = __m512bh;
    type Weights = __m512bh;
    type Sums = __m512;
    const WEIGHT: usize = 2;
    const STEP: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn row(from: *const u16) -> __m512bh {
        transmute(_mm512_loadu_si512(from.cast()))
    }
    #[inline(always)]
    unsafe fn weights(from: *const u8) -> __m512bh {
        transmute(_mm512_loadu_si512(from.cast()))
    }
    #[inline(always)]
    unsafe fn add(sums: __m512, row: __m512bh, weights: __m512bh) -> __m512 {
        _mm512_dpbf16_ps(sums, row, weights)
    }
    #[inline(always)]
    unsafe fn total(sums: __m512) -> f32 {
        _mm512_reduce_add_ps(sums)
    }
    #[inline(always)]
    unsafe fn one(x: *const u16, weight: *const u8) -> f32 {
        bf16::from_bits(*x).to_f32() * bf16::from_bits(weight.cast::<u16>().read_unaligned()).to_f32()
    }
}
