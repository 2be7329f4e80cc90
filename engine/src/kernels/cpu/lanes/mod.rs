//! A vector of f32 as wide as the CPU has, chosen once per process.
//!
//! Kernels are written once over [`Lanes`] and instantiated per instruction set inside a function that
//! enables it ([`dispatch!`]); the methods are `inline(always)` so that they are compiled with its features.
//! Every method works on each lane by itself, except where it says otherwise.
#![expect(unsafe_code, reason = "SIMD intrinsics and unaligned loads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the traits state the contract")]

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod simd;
mod stored;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use portable::Portable;
pub(super) use simd::{Simd, dispatch};
pub(super) use stored::{Bf16, F16, F32, I8, Stored};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// Numbers of the widest vector: room for any.
pub(super) const WIDEST: usize = 16;

/// Asks for the line at `address`, which may be any, to be brought near.
#[inline(always)]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and every x86-64 has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A vector of f32.
pub(super) trait Lanes: Copy {
    /// Numbers per vector: a divisor of [`WIDEST`].
    const WIDTH: usize;
    /// All zero.
    ///
    /// # Safety
    /// The CPU has the instruction set of the implementation: so for every method.
    unsafe fn zero() -> Self;
    /// All the same.
    unsafe fn splat(value: f32) -> Self;
    /// `WIDTH` f32 from `from`, unaligned.
    unsafe fn load_f32(from: *const u8) -> Self;
    /// `WIDTH` bf16 from `from`, unaligned.
    unsafe fn load_bf16(from: *const u8) -> Self;
    /// `WIDTH` f16 from `from`, unaligned.
    unsafe fn load_f16(from: *const u8) -> Self;
    /// `WIDTH` signed bytes from `from`.
    unsafe fn load_i8(from: *const u8) -> Self;
    /// Stores `WIDTH` f32 at `to`, unaligned.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    /// The sum of all numbers, in an order of its own that never changes.
    unsafe fn sum(self) -> f32;
    /// The largest of all numbers.
    unsafe fn highest(self) -> f32;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// The larger one; a NaN in `other` stays.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller one; a NaN in `other` stays.
    unsafe fn min(self, other: Self) -> Self;
    /// The nearest whole number, for numbers below 2²².
    unsafe fn round(self) -> Self;
    /// `self · 2^power` for whole numbers in -252..=254, rounding once at most.
    unsafe fn scale(self, power: Self) -> Self;
    /// The numbers of every pair exchanged.
    unsafe fn swap_pairs(self) -> Self;

    /// `e^self` within 2 units in the last place; 0 for -∞, ∞ above 88.73, and a NaN stays one.
    ///
    /// Cephes' `expf`: `e^x = 2^n · e^r` with `n = round(x / ln 2)` and a polynomial for `|r| ≤ ln 2 / 2`.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // Beyond these limits every result is 0 or ∞.
        let x = Self::splat(89.0).min(Self::splat(-104.0).max(self));
        let power = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, the first of so few bits that its products with `power` are exact.
        let r = x.multiply_add(power, Self::splat(-0.693_359_4)).multiply_add(power, Self::splat(2.121_944_4e-4));
        let mut sum = Self::splat(1.987_569_2e-4);
        for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            sum = Self::splat(coefficient).multiply_add(sum, r);
        }
        r.add(Self::splat(1.0)).multiply_add(sum, r.mul(r)).scale(power)
    }

    /// `count` f32 from `from` and zeros after them.
    ///
    /// # Safety
    /// As always; `count` is at most `WIDTH`.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut all = [0.0f32; WIDEST];
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), count);
        Self::load_f32(all.as_ptr().cast())
    }

    /// Stores the first `count` numbers at `to`.
    ///
    /// # Safety
    /// As always; `count` is at most `WIDTH`.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        let mut all = [0.0f32; WIDEST];
        self.store(all.as_mut_ptr());
        std::ptr::copy_nonoverlapping(all.as_ptr(), to, count);
    }
}
