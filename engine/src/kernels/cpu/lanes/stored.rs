//! How a stored number becomes f32.

use super::Lanes;

/// A format numbers are stored in.
pub(in super::super) trait Stored: Copy + Send + Sync {
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
pub(in super::super) struct F32;
/// Stored as f16.
#[derive(Clone, Copy)]
pub(in super::super) struct F16;
/// Stored as bf16.
#[derive(Clone, Copy)]
pub(in super::super) struct Bf16;
/// Stored as a signed byte.
#[derive(Clone, Copy)]
pub(in super::super) struct I8;

// SAFETY (all four): reads stay within what the caller vouches for; unaligned reads are used throughout.
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

impl Stored for I8 {
    const BYTES: usize = 1;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        L::load_i8(from)
    }
    #[inline(always)]
    unsafe fn load_one(from: *const u8) -> f32 {
        f32::from(from.cast::<i8>().read())
    }
}
