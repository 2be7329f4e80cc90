//! AVX-512 with VNNI: sixteen outputs per register.
#![expect(unsafe_code, reason = "SIMD intrinsics and unaligned loads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the trait states the contract")]

use std::arch::x86_64::*;

use super::lanes::ByteLanes;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl ByteLanes for Avx512 {
    const LANES: usize = 16;
    const ROWS: usize = 10;
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }
    #[inline(always)]
    unsafe fn and(bytes: __m512i, mask: u8) -> __m512i {
        _mm512_and_si512(bytes, _mm512_set1_epi8(mask.cast_signed()))
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }
    #[inline(always)]
    unsafe fn left<const BITS: u32>(bytes: __m512i) -> __m512i {
        _mm512_slli_epi16::<BITS>(bytes)
    }
    #[inline(always)]
    unsafe fn right<const BITS: u32>(bytes: __m512i) -> __m512i {
        _mm512_srli_epi16::<BITS>(bytes)
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> __m512i {
        _mm512_set1_epi32(value)
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, weights: __m512i, activations: i32) -> __m512i {
        _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(activations))
    }
    #[inline(always)]
    unsafe fn begin_signed(correction: i32) -> __m512i {
        _mm512_set1_epi32(correction)
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: __m512i, weights: __m512i, activations: i32) -> __m512i {
        let shifted = _mm512_xor_si512(weights, _mm512_set1_epi8(i8::MIN));
        _mm512_dpbusd_epi32(sum, shifted, _mm512_set1_epi32(activations))
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m512i, weights: __m512i, activations: i32) -> __m512i {
        _mm512_dpwssd_epi32(sum, weights, _mm512_set1_epi32(activations))
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u8) -> __m512i {
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()))
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn to_floats(ints: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(ints)
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn multiply_subtract(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fnmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn store(floats: __m512, to: *mut f32) {
        _mm512_storeu_ps(to, floats);
    }
}
