//! NEON.

use std::arch::aarch64::*;

use super::Lanes;

/// Four numbers.
#[derive(Clone, Copy)]
pub(in super::super) struct Neon(float32x4_t);

// SAFETY: NEON is part of every aarch64; loads and stores are unaligned.
impl Lanes for Neon {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(vdupq_n_f32(0.0))
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(vdupq_n_f32(value))
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const u8) -> Self {
        Self(vreinterpretq_f32_u8(vld1q_u8(from)))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        Self(vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(from)))))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        Self(vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from))))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        let four = from.cast::<u32>().read_unaligned();
        let wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
        Self(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        vst1q_u8(to.cast(), vreinterpretq_u8_f32(self.0))
    }
    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        Self(vfmaq_f32(self.0, a.0, b.0))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        vaddvq_f32(self.0)
    }
    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        vmaxvq_f32(self.0)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(vaddq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(vsubq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(vmulq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(vdivq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(vmaxq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(vminq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(vrndnq_f32(self.0))
    }
    #[inline(always)]
    unsafe fn scale(self, power: Self) -> Self {
        // In two steps, since 2^power alone may be beyond what f32 holds.
        let power = vcvtq_s32_f32(power.0);
        let half = vshrq_n_s32::<1>(power);
        let bias = vdupq_n_s32(127);
        let first = vshlq_n_s32::<23>(vaddq_s32(half, bias));
        let second = vshlq_n_s32::<23>(vaddq_s32(vsubq_s32(power, half), bias));
        Self(vmulq_f32(vmulq_f32(self.0, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second)))
    }
    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        Self(vrev64q_f32(self.0))
    }
}
