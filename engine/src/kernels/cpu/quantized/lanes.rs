//! The vector operations of a quantised product, and the instruction sets that have them.
//!
//! A register holds [`ByteLanes::LANES`] outputs: as 4 bytes each of a tile's quants, as an i32 sum, or as a
//! float. Kernels are written once over the trait; [`dispatch!`] instantiates them inside functions that enable
//! an instruction set. [`scalar`](super::scalar) is the reference that all others are tested against.
#![expect(unsafe_code, reason = "the trait's methods are instructions a CPU may lack")]

use std::sync::OnceLock;

/// Vectors over outputs.
///
/// # Safety
/// Of every method: the CPU has the instruction set of the implementation, and pointers are good for what the
/// method reads or writes, at any alignment.
pub(super) trait ByteLanes: Copy {
    /// Outputs per register; divides 16.
    const LANES: usize;
    /// Rows of activations computed together: as many as the registers hold sums for.
    const ROWS: usize;
    /// `4 · LANES` bytes.
    type Bytes: Copy;
    /// `LANES` i32.
    type Ints: Copy;
    /// `LANES` f32.
    type Floats: Copy;

    unsafe fn load(from: *const u8) -> Self::Bytes;
    unsafe fn and(bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Shifts to the left; what comes in from the next byte is the caller's to mask.
    unsafe fn left<const BITS: u32>(bytes: Self::Bytes) -> Self::Bytes;
    /// Shifts to the right; likewise.
    unsafe fn right<const BITS: u32>(bytes: Self::Bytes) -> Self::Bytes;

    unsafe fn splat(value: i32) -> Self::Ints;
    /// `sum + Σ₄ weight · activation`: weights are 0..=63, `activations` four signed bytes, -127 the least.
    unsafe fn dot(sum: Self::Ints, weights: Self::Bytes, activations: i32) -> Self::Ints;
    /// Where a sum of [`ByteLanes::dot_signed`] begins, given -128 times the sum of its activations.
    unsafe fn begin_signed(correction: i32) -> Self::Ints;
    /// `sum + Σ₄ weight · activation` for weights of -128..=127, provided that the sum began with
    /// [`ByteLanes::begin_signed`].
    unsafe fn dot_signed(sum: Self::Ints, weights: Self::Bytes, activations: i32) -> Self::Ints;
    /// `sum + Σ₂ weight · activation` for `2 · LANES` weights, bytes at `weights`, and two i16.
    unsafe fn dot_pairs(sum: Self::Ints, weights: Self::Bytes, activations: i32) -> Self::Ints;
    /// `2 · LANES` bytes as i16, for [`ByteLanes::dot_pairs`].
    unsafe fn load_pairs(from: *const u8) -> Self::Bytes;

    unsafe fn zero() -> Self::Floats;
    unsafe fn splat_float(value: f32) -> Self::Floats;
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats;
    /// `LANES` unsigned bytes.
    unsafe fn load_u8(from: *const u8) -> Self::Floats;
    /// `LANES` signed bytes.
    unsafe fn load_i8(from: *const u8) -> Self::Floats;
    /// `LANES` half-precision numbers.
    unsafe fn load_f16(from: *const u8) -> Self::Floats;
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`.
    unsafe fn multiply_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a · b`.
    unsafe fn multiply_subtract(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Stores `LANES` f32.
    unsafe fn store(floats: Self::Floats, to: *mut f32);
}

/// An instruction set that quantised products can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteSimd {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with the VNNI of narrower registers.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with dot products.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain code.
    Scalar,
}

impl ByteSimd {
    /// Every one this CPU has, best first.
    pub(crate) fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx2 = avx2 && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if avx2 && avx512 && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni") {
                all.push(Self::Avx512);
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                all.push(Self::AvxVnni);
            }
            if avx2 {
                all.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(Self::Neon);
        }
        all.push(Self::Scalar);
        all
    }

    /// The best one this CPU has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<ByteSimd> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// Its [`ByteLanes::ROWS`].
    pub(super) fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::avx512::Avx512::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => super::avx2::Avx2::<true>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => super::avx2::Avx2::<false>::ROWS,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => super::neon::Neon::ROWS,
            Self::Scalar => super::scalar::Scalar::ROWS,
        }
    }
}

/// Calls `$name::<L, generics…>(args…)` with the lanes of `$simd`, inside a function that enables their
/// instruction set. `$name` must be `unsafe` and `inline(always)`.
macro_rules! dispatch_bytes {
    ($simd:expr, $name:ident $(::<$($generic:ident),+>)?, [$($bound:tt)*], ($($arg:ident : $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        unsafe fn avx512 $($bound)* ($($arg: $type),*) {
            // SAFETY: the caller's contract, and this function's features.
            unsafe { $name::<$crate::kernels::cpu::quantized::avx512::Avx512 $(, $($generic),+)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        unsafe fn avx_vnni $($bound)* ($($arg: $type),*) {
            // SAFETY: the caller's contract, and this function's features.
            unsafe { $name::<$crate::kernels::cpu::quantized::avx2::Avx2<true> $(, $($generic),+)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2 $($bound)* ($($arg: $type),*) {
            // SAFETY: the caller's contract, and this function's features.
            unsafe { $name::<$crate::kernels::cpu::quantized::avx2::Avx2<false> $(, $($generic),+)?>($($arg),*) }
        }
        #[cfg(target_arch = "aarch64")]
        #[target_feature(enable = "neon,dotprod")]
        unsafe fn neon $($bound)* ($($arg: $type),*) {
            // SAFETY: the caller's contract, and this function's features.
            unsafe { $name::<$crate::kernels::cpu::quantized::neon::Neon $(, $($generic),+)?>($($arg),*) }
        }
        use $crate::kernels::cpu::quantized::lanes::ByteSimd;
        // SAFETY: `ByteSimd` values are only made by detection.
        unsafe {
            match $simd {
                #[cfg(target_arch = "x86_64")]
                ByteSimd::Avx512 => avx512 $(::<$($generic),+>)? ($($arg),*),
                #[cfg(target_arch = "x86_64")]
                ByteSimd::AvxVnni => avx_vnni $(::<$($generic),+>)? ($($arg),*),
                #[cfg(target_arch = "x86_64")]
                ByteSimd::Avx2 => avx2 $(::<$($generic),+>)? ($($arg),*),
                #[cfg(target_arch = "aarch64")]
                ByteSimd::Neon => neon $(::<$($generic),+>)? ($($arg),*),
                ByteSimd::Scalar => {
                    $name::<$crate::kernels::cpu::quantized::scalar::Scalar $(, $($generic),+)?>($($arg),*)
                }
            }
        }
    }};
}
pub(super) use dispatch_bytes;
