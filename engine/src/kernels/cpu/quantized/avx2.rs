//! AVX2, with or without VNNI: eight outputs per register.
#![expect(unsafe_code, reason = "SIMD intrinsics and unaligned loads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the trait states the contract")]

use std::arch::x86_64::*;

use super::lanes::ByteLanes;

/// `VNNI`: products of four bytes are one instruction instead of three.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>;

impl<const VNNI: bool> ByteLanes for Avx2<VNNI> {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    type Bytes = __m256i;
    type Ints = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }
    #[inline(always)]
    unsafe fn and(bytes: __m256i, mask: u8) -> __m256i {
        _mm256_and_si256(bytes, _mm256_set1_epi8(mask.cast_signed()))
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        _mm256_or_si256(a, b)
    }
    #[inline(always)]
    unsafe fn left<const BITS: u32>(bytes: __m256i) -> __m256i {
        _mm256_sll_epi16(bytes, _mm_cvtsi32_si128(BITS as i32))
    }
    #[inline(always)]
    unsafe fn right<const BITS: u32>(bytes: __m256i) -> __m256i {
        _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(BITS as i32))
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> __m256i {
        _mm256_set1_epi32(value)
    }
    #[inline(always)]
    unsafe fn dot(sum: __m256i, weights: __m256i, activations: i32) -> __m256i {
        let activations = _mm256_set1_epi32(activations);
        if VNNI {
            return _mm256_dpbusd_avx_epi32(sum, weights, activations);
        }
        // Two products of at most 63 · 127 fit an i16.
        let pairs = _mm256_maddubs_epi16(weights, activations);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
    #[inline(always)]
    unsafe fn begin_signed(correction: i32) -> __m256i {
        if VNNI { _mm256_set1_epi32(correction) } else { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: __m256i, weights: __m256i, activations: i32) -> __m256i {
        let activations = _mm256_set1_epi32(activations);
        if VNNI {
            let shifted = _mm256_xor_si256(weights, _mm256_set1_epi8(i8::MIN));
            return _mm256_dpbusd_avx_epi32(sum, shifted, activations);
        }
        // The weight's sign moves to the activation, which has an opposite: two products of at most 128 · 127
        // fit an i16.
        let signed = _mm256_sign_epi8(activations, weights);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signed);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m256i, weights: __m256i, activations: i32) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(weights, _mm256_set1_epi32(activations)))
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u8) -> __m256i {
        _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()))
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        _mm256_setzero_ps()
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn to_floats(ints: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(ints)
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> __m256 {
        _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn multiply_subtract(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fnmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn store(floats: __m256, to: *mut f32) {
        _mm256_storeu_ps(to, floats);
    }
}
