//! Numbers as signed bytes with a common scale: how activations meet quantised weights, and how 8-bit keys and
//! values are stored.
//!
//! Inlined into functions that enable an instruction set, where the compiler makes vector code of them; the
//! result is the same on all.

/// The scale of `x`, `max |x| / 127`, and what makes bytes of its numbers. The scale is not finite if one of `x`
/// is not.
#[inline(always)]
pub(super) fn scale_of(x: &[f32]) -> (f32, f32) {
    // The bits of absolute values order like the values, with infinity and then NaN above all.
    let bits = |x: &f32| x.to_bits() & 0x7fff_ffff;
    let mut highest = [0u32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (highest, x) in highest.iter_mut().zip(chunk) {
            *highest = (*highest).max(bits(x));
        }
    }
    let highest = f32::from_bits(highest.into_iter().chain(rest.iter().map(bits)).fold(0, u32::max));
    let scale = highest / 127.0;
    // A scale too small to have an inverse stands for nothing but zeros.
    (scale, if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 })
}

/// `x ≈ scale · bytes`, given the inverse of the scale; what is no finite number becomes 0, as all others then.
#[inline(always)]
pub(super) fn to_bytes(x: &[f32], inverse: f32, bytes: &mut [i8]) {
    for (byte, x) in bytes.iter_mut().zip(x) {
        *byte = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(x: &[f32]) -> (f32, Vec<i8>) {
        let (scale, inverse) = scale_of(x);
        let mut bytes = vec![0; x.len()];
        to_bytes(x, inverse, &mut bytes);
        (scale, bytes)
    }

    #[test]
    fn numbers_are_off_by_half_a_step_at_most_whatever_their_count() {
        for count in [1, 2, 15, 16, 17, 33, 128] {
            for highest in 0..count {
                let mut x: Vec<f32> = (0..count).map(|index| ((index * 7919) % 1013) as f32 * 0.01 - 5.0).collect();
                x[highest] = -7.5;
                let (scale, bytes) = convert(&x);
                assert_eq!((scale, bytes[highest]), (7.5 / 127.0, -127));
                assert!(x.iter().zip(bytes).all(|(x, byte)| (x - scale * f32::from(byte)).abs() <= 0.501 * scale));
            }
        }
    }

    #[test]
    fn extremes_stay_what_they_are() {
        assert_eq!(convert(&[0.0; 32]), (0.0, vec![0; 32]));
        let mut x = [1e-3; 32];
        x[7] = -254.0;
        let (scale, bytes) = convert(&x);
        assert_eq!((scale, bytes[7], bytes[8]), (2.0, -127, 0));
        for at in [3, 30] {
            let mut x = x;
            x[at] = f32::NAN;
            assert!(convert(&x).0.is_nan());
            x[at] = f32::NEG_INFINITY;
            assert_eq!(convert(&x), (f32::INFINITY, vec![0; 32]));
        }
        assert_eq!(convert(&[1e-42; 32]).1, [0; 32]);
        let (scale, bytes) = convert(&[f32::MAX; 32]);
        assert!(scale.is_finite() && bytes == [127; 32]);
    }
}
