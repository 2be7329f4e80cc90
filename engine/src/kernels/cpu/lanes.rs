//! A vector of f32 as wide as the CPU has, chosen once per process.
//!
//! Kernels are written once over [`Lanes`] and instantiated per instruction set inside a function that
//! enables it ([`dispatch!`]); the methods are `inline(always)` so that they are compiled with its features.
#![expect(unsafe_code, reason = "SIMD intrinsics and unaligned loads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the traits state the contract")]

use std::sync::OnceLock;

/// A vector of f32.
pub(super) trait Lanes: Copy {
    /// Numbers per vector.
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
    /// Stores `WIDTH` f32 at `to`, unaligned.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    /// The sum of all numbers, in an order of its own that never changes.
    unsafe fn sum(self) -> f32;
}

/// How a stored number becomes f32.
pub(super) trait Stored: Copy + Send + Sync {
    /// Bytes per number.
    const BYTES: usize;
    /// A vector of them.
    ///
    /// # Safety
    /// `from` has `L::WIDTH` numbers; the CPU has `L`'s instruction set.
    unsafe fn load<L: Lanes>(from: *const u8) -> L;
    /// One of them.
    ///
    /// # Safety
    /// `from` has one number.
    unsafe fn load_one(from: *const u8) -> f32;
}

/// Stored as f32.
#[derive(Clone, Copy)]
pub(super) struct F32;
/// Stored as f16.
#[derive(Clone, Copy)]
pub(super) struct F16;
/// Stored as bf16.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

// SAFETY (all three): reads stay within what the caller vouches for; unaligned reads are used throughout.
impl Stored for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        L::load_f32(from)
    }
    #[inline(always)]
    unsafe fn load_one(from: *const u8) -> f32 {
        from.cast::<f32>().read_unaligned()
    }
}

impl Stored for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        L::load_f16(from)
    }
    #[inline(always)]
    unsafe fn load_one(from: *const u8) -> f32 {
        half::f16::from_bits(from.cast::<u16>().read_unaligned()).to_f32()
    }
}

impl Stored for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        L::load_bf16(from)
    }
    #[inline(always)]
    unsafe fn load_one(from: *const u8) -> f32 {
        f32::from_bits(u32::from(from.cast::<u16>().read_unaligned()) << 16)
    }
}

/// Eight numbers in an array: what every CPU has, and what NEON compiles well.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// AVX2 with FMA and F16C.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256);

    // SAFETY: only instantiated where `Simd::Avx2` was detected; loads and stores are unaligned.
    impl Lanes for Avx2 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(_mm256_setzero_ps())
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self(_mm256_set1_ps(value))
        }
        #[inline(always)]
        unsafe fn load_f32(from: *const u8) -> Self {
            Self(_mm256_loadu_ps(from.cast()))
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> Self {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> Self {
            Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast())))
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            _mm256_storeu_ps(to, self.0)
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            Self(_mm256_fmadd_ps(a.0, b.0, self.0))
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    /// AVX-512 foundation.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512);

    // SAFETY: only instantiated where `Simd::Avx512` was detected; loads and stores are unaligned.
    impl Lanes for Avx512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(_mm512_setzero_ps())
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self(_mm512_set1_ps(value))
        }
        #[inline(always)]
        unsafe fn load_f32(from: *const u8) -> Self {
            Self(_mm512_loadu_ps(from.cast()))
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> Self {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> Self {
            Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            _mm512_storeu_ps(to, self.0)
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            Self(_mm512_fmadd_ps(a.0, b.0, self.0))
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            _mm512_reduce_add_ps(self.0)
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// The instruction sets kernels are instantiated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Simd {
    /// AVX-512 foundation.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain code.
    Portable,
}

impl Simd {
    /// Every one this CPU has, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Portable);
        all
    }

    /// The best one this CPU has.
    pub(super) fn best() -> Self {
        static BEST: OnceLock<Simd> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }
}

/// Calls `$name::<L, generics…>(args…)` with the lanes of `$simd`, inside a function that enables their
/// instruction set. `$name` must be `unsafe` and `inline(always)`.
macro_rules! dispatch {
    ($simd:expr, $name:ident $(::<$($generic:ident),+>)?, [$($bound:tt)*], ($($arg:ident : $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512 $($bound)* ($($arg: $type),*) {
            // SAFETY: the caller's contract, and this function's feature.
            unsafe { $name::<$crate::kernels::cpu::lanes::Avx512 $(, $($generic),+)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2 $($bound)* ($($arg: $type),*) {
            // SAFETY: the caller's contract, and this function's features.
            unsafe { $name::<$crate::kernels::cpu::lanes::Avx2 $(, $($generic),+)?>($($arg),*) }
        }
        // SAFETY: `Simd` values are only made by detection.
        unsafe {
            match $simd {
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::cpu::lanes::Simd::Avx512 => avx512 $(::<$($generic),+>)? ($($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::cpu::lanes::Simd::Avx2 => avx2 $(::<$($generic),+>)? ($($arg),*),
                $crate::kernels::cpu::lanes::Simd::Portable => {
                    $name::<$crate::kernels::cpu::lanes::Portable $(, $($generic),+)?>($($arg),*)
                }
            }
        }
    }};
}
pub(super) use dispatch;
