//! Which instruction sets there are, and calling a kernel with one of them.

use std::sync::OnceLock;

/// The instruction sets kernels are instantiated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Simd {
    /// AVX-512 foundation.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON, which every aarch64 has.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain code.
    Portable,
}

impl Simd {
    /// Every one this CPU has, best first.
    pub(in super::super) fn available() -> Vec<Self> {
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
        #[cfg(target_arch = "aarch64")]
        all.push(Self::Neon);
        all.push(Self::Portable);
        all
    }

    /// The best one this CPU has.
    pub(in super::super) fn best() -> Self {
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
                #[cfg(target_arch = "aarch64")]
                $crate::kernels::cpu::lanes::Simd::Neon => {
                    $name::<$crate::kernels::cpu::lanes::Neon $(, $($generic),+)?>($($arg),*)
                }
                $crate::kernels::cpu::lanes::Simd::Portable => {
                    $name::<$crate::kernels::cpu::lanes::Portable $(, $($generic),+)?>($($arg),*)
                }
            }
        }
    }};
}
pub(in super::super) use dispatch;
