//! Plain code for every CPU.

use super::Lanes;

/// Eight numbers in an array.
#[derive(Clone, Copy)]
pub(in super::super) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn each(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const u8) -> Self {
        Self(from.cast::<[f32; 8]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        let bits = from.cast::<[u16; 8]>().read_unaligned();
        Self(bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        let bits = from.cast::<[u16; 8]>().read_unaligned();
        Self(bits.map(|bits| half::f16::from_bits(bits).to_f32()))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        Self(from.cast::<[i8; 8]>().read().map(f32::from))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; 8]>().write_unaligned(self.0)
    }
    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        let mut out = self.0;
        for (i, out) in out.iter_mut().enumerate() {
            // A fused multiply-add is an instruction of every aarch64, but a library call on plain x86-64.
            *out = if cfg!(target_arch = "aarch64") { a.0[i].mul_add(b.0[i], *out) } else { *out + a.0[i] * b.0[i] };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.each(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.each(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.each(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // From here on f32 has no digits after the point.
        const WHOLE: f32 = 12_582_912.0;
        Self(self.0.map(|value| (value + WHOLE) - WHOLE))
    }
    #[inline(always)]
    unsafe fn scale(self, power: Self) -> Self {
        self.each(power, |value, power| {
            // In two steps, since 2^power alone may be beyond what f32 holds.
            let power = power as i32;
            let half = power >> 1;
            let two_to = |power: i32| f32::from_bits(((power + 127) << 23) as u32);
            value * two_to(half) * two_to(power - half)
        })
    }
    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        let [a, b, c, d, e, f, g, h] = self.0;
        Self([b, a, d, c, f, e, h, g])
    }
}
