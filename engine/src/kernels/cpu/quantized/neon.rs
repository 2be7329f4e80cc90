//! NEON with dot products: four outputs per register.
#![expect(unsafe_code, reason = "SIMD intrinsics, one instruction in assembly, and unaligned loads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the trait states the contract")]

use std::{
    arch::{aarch64::*, asm},
    mem::transmute,
};

use super::lanes::ByteLanes;

#[derive(Clone, Copy)]
pub(super) struct Neon;

/// `sum + Σ₄ weight · activation` per lane: `vdotq_s32`, which is not stable as an intrinsic.
#[inline(always)]
unsafe fn signed_dot(sum: int32x4_t, weights: uint8x16_t, activations: i32) -> int32x4_t {
    let activations = vdupq_n_s32(activations);
    let mut out = sum;
    asm!(
        "sdot {sum:v}.4s, {weights:v}.16b, {activations:v}.16b",
        sum = inout(vreg) out, weights = in(vreg) weights, activations = in(vreg) activations,
        options(pure, nomem, nostack, preserves_flags)
    );
    out
}

impl ByteLanes for Neon {
    const LANES: usize = 4;
    const ROWS: usize = 8;
    type Bytes = uint8x16_t;
    type Ints = int32x4_t;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> uint8x16_t {
        vld1q_u8(from)
    }
    #[inline(always)]
    unsafe fn and(bytes: uint8x16_t, mask: u8) -> uint8x16_t {
        vandq_u8(bytes, vdupq_n_u8(mask))
    }
    #[inline(always)]
    unsafe fn or(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        vorrq_u8(a, b)
    }
    #[inline(always)]
    unsafe fn left<const BITS: u32>(bytes: uint8x16_t) -> uint8x16_t {
        vshlq_u8(bytes, vdupq_n_s8(BITS as i8))
    }
    #[inline(always)]
    unsafe fn right<const BITS: u32>(bytes: uint8x16_t) -> uint8x16_t {
        vshlq_u8(bytes, vdupq_n_s8(-(BITS as i8)))
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> int32x4_t {
        vdupq_n_s32(value)
    }
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, weights: uint8x16_t, activations: i32) -> int32x4_t {
        signed_dot(sum, weights, activations)
    }
    #[inline(always)]
    unsafe fn begin_signed(_: i32) -> int32x4_t {
        vdupq_n_s32(0)
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: int32x4_t, weights: uint8x16_t, activations: i32) -> int32x4_t {
        signed_dot(sum, weights, activations)
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: int32x4_t, weights: uint8x16_t, activations: i32) -> int32x4_t {
        let (weights, activations) = (vreinterpretq_s16_u8(weights), vreinterpretq_s16_s32(vdupq_n_s32(activations)));
        let low = vmull_s16(vget_low_s16(weights), vget_low_s16(activations));
        let high = vmull_high_s16(weights, activations);
        vaddq_s32(sum, vpaddq_s32(low, high))
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u8) -> uint8x16_t {
        vreinterpretq_u8_u16(vmovl_u8(vld1_u8(from)))
    }

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        vdupq_n_f32(0.0)
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> float32x4_t {
        vdupq_n_f32(value)
    }
    #[inline(always)]
    unsafe fn to_floats(ints: int32x4_t) -> float32x4_t {
        vcvtq_f32_s32(ints)
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> float32x4_t {
        transmute(from.cast::<[u8; 4]>().read_unaligned().map(f32::from))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> float32x4_t {
        transmute(from.cast::<[i8; 4]>().read_unaligned().map(f32::from))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> float32x4_t {
        vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from)))
    }
    #[inline(always)]
    unsafe fn multiply(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn multiply_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn multiply_subtract(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmsq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn store(floats: float32x4_t, to: *mut f32) {
        vst1q_f32(to, floats);
    }
}
