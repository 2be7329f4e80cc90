//! The reference: what every instruction set must compute, in plain code.
#![expect(unsafe_code, reason = "the trait's methods take pointers")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every method is one such operation; the trait states the contract")]

use half::f16;

use super::lanes::ByteLanes;

/// Sixteen outputs in arrays.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

const LANES: usize = 16;

fn quad(activations: i32) -> [i32; 4] {
    activations.to_le_bytes().map(|byte| i32::from(byte.cast_signed()))
}

fn each<T, U: Default + Copy>(from: [T; LANES], mut map: impl FnMut(T) -> U) -> [U; LANES] {
    from.map(&mut map)
}

impl ByteLanes for Scalar {
    const LANES: usize = LANES;
    const ROWS: usize = 2;
    type Bytes = [u8; 4 * LANES];
    type Ints = [i32; LANES];
    type Floats = [f32; LANES];

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Bytes {
        from.cast::<Self::Bytes>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn and(bytes: Self::Bytes, mask: u8) -> Self::Bytes {
        bytes.map(|byte| byte & mask)
    }
    #[inline(always)]
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn left<const BITS: u32>(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte << BITS)
    }
    #[inline(always)]
    unsafe fn right<const BITS: u32>(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte >> BITS)
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self::Ints {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn dot(sum: Self::Ints, weights: Self::Bytes, activations: i32) -> Self::Ints {
        let activations = quad(activations);
        let dot = |lane: usize| (0..4).map(|k| i32::from(weights[4 * lane + k]) * activations[k]).sum::<i32>();
        std::array::from_fn(|lane| sum[lane] + dot(lane))
    }
    #[inline(always)]
    unsafe fn begin_signed(_: i32) -> Self::Ints {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: Self::Ints, weights: Self::Bytes, activations: i32) -> Self::Ints {
        let activations = quad(activations);
        let weight = |at: usize| i32::from(weights[at].cast_signed());
        let dot = |lane: usize| (0..4).map(|k| weight(4 * lane + k) * activations[k]).sum::<i32>();
        std::array::from_fn(|lane| sum[lane] + dot(lane))
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: Self::Ints, weights: Self::Bytes, activations: i32) -> Self::Ints {
        let (a, b) = (i32::from(activations as i16), activations >> 16);
        std::array::from_fn(|lane| sum[lane] + i32::from(weights[4 * lane]) * a + i32::from(weights[4 * lane + 2]) * b)
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u8) -> Self::Bytes {
        let bytes = from.cast::<[u8; 2 * LANES]>().read_unaligned();
        std::array::from_fn(|i| if i % 2 == 0 { bytes[i / 2] } else { 0 })
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Floats {
        [0.0; LANES]
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> Self::Floats {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        each(ints, |int| int as f32)
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::Floats {
        each(from.cast::<[u8; LANES]>().read_unaligned(), f32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self::Floats {
        each(from.cast::<[i8; LANES]>().read_unaligned(), f32::from)
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self::Floats {
        each(from.cast::<[u16; LANES]>().read_unaligned(), |bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn multiply_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn multiply_subtract(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn store(floats: Self::Floats, to: *mut f32) {
        to.cast::<Self::Floats>().write_unaligned(floats);
    }
}
