//! Exponentials and sums over slices, for softmax in attention and in the sampler.
//!
//! Whatever the length, every number gets the bits it would get anywhere else in a slice, and sums are taken
//! in an order that depends on the length alone.
#![expect(unsafe_code, reason = "SIMD over slices")]

use super::lanes::{Lanes, Simd, dispatch};

/// `x = e^((x - highest) · scale)`: the weights of a softmax at temperature `1 / scale`, not yet divided by
/// their sum. `highest` is the largest of them, so that no weight exceeds 1.
pub fn softmax_weights(x: &mut [f32], highest: f32, scale: f32) {
    softmax_weights_with(Simd::best(), x, highest, scale);
}

fn softmax_weights_with(simd: Simd, x: &mut [f32], highest: f32, scale: f32) {
    // SAFETY: `Simd` was detected.
    dispatch!(simd, weights, [], (x: &mut [f32], highest: f32, scale: f32));
}

/// As [`softmax_weights`].
///
/// # Safety
/// The CPU has `L`'s instruction set.
#[inline(always)]
pub(super) unsafe fn weights<L: Lanes>(x: &mut [f32], highest: f32, scale: f32) {
    // SAFETY: reads and writes stay within the chunks.
    unsafe {
        let (highest, scale) = (L::splat(highest), L::splat(scale));
        let mut chunks = x.chunks_exact_mut(L::WIDTH);
        for chunk in &mut chunks {
            L::load_f32(chunk.as_ptr().cast()).sub(highest).mul(scale).exp().store(chunk.as_mut_ptr());
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let part = L::load_part(rest.as_ptr(), rest.len());
            part.sub(highest).mul(scale).exp().store_part(rest.as_mut_ptr(), rest.len());
        }
    }
}

/// The largest number; -∞ if there is none.
///
/// # Safety
/// The CPU has `L`'s instruction set.
#[inline(always)]
pub(super) unsafe fn highest_into<L: Lanes>(x: &[f32], out: &mut f32) {
    // SAFETY: reads stay within the chunks.
    unsafe {
        let mut highest = L::splat(f32::NEG_INFINITY);
        let chunks = x.chunks_exact(L::WIDTH);
        let rest = chunks.remainder();
        for chunk in chunks {
            highest = L::load_f32(chunk.as_ptr().cast()).max(highest);
        }
        *out = rest.iter().fold(highest.highest(), |highest, &value| if value > highest { value } else { highest });
    }
}

/// The sum of all numbers.
///
/// # Safety
/// The CPU has `L`'s instruction set.
#[inline(always)]
pub(super) unsafe fn sum_into<L: Lanes>(x: &[f32], out: &mut f32) {
    // SAFETY: reads stay within the chunks.
    unsafe {
        let mut sum = L::zero();
        let chunks = x.chunks_exact(L::WIDTH);
        let rest = chunks.remainder();
        for chunk in chunks {
            sum = sum.add(L::load_f32(chunk.as_ptr().cast()));
        }
        *out = sum.add(L::load_part(rest.as_ptr(), rest.len())).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highest_with(simd: Simd, x: &[f32]) -> f32 {
        let mut result = f32::NEG_INFINITY;
        let out = &mut result;
        // SAFETY: `Simd` was detected.
        dispatch!(simd, highest_into, [], (x: &[f32], out: &mut f32));
        result
    }

    fn sum_with(simd: Simd, x: &[f32]) -> f32 {
        let mut result = 0.0;
        let out = &mut result;
        // SAFETY: `Simd` was detected.
        dispatch!(simd, sum_into, [], (x: &[f32], out: &mut f32));
        result
    }

    fn logits(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7919) % 1013) as f32 * 0.05 - 25.0).collect()
    }

    #[test]
    fn weights_and_sums_agree_with_f64_at_every_length() {
        for simd in Simd::available() {
            for count in (0..40).chain([1000, 32_768]) {
                let logits = logits(count);
                let highest = highest_with(simd, &logits);
                assert_eq!(highest, logits.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{simd:?} {count}");
                let mut weights = logits.clone();
                softmax_weights_with(simd, &mut weights, highest, 1.25);
                let mut total = 0.0;
                for (weight, logit) in weights.iter().zip(&logits) {
                    let exact = f64::from((logit - highest) * 1.25).exp();
                    total += exact;
                    assert!((f64::from(*weight) - exact).abs() <= 1e-6 * exact, "{simd:?} {count}: {logit}");
                }
                assert!((f64::from(sum_with(simd, &weights)) - total).abs() <= 1e-5 * total, "{simd:?} {count}");
            }
        }
    }

    #[test]
    fn a_number_has_the_same_weight_wherever_it_stands() {
        for simd in Simd::available() {
            let logits = logits(100);
            let mut all = logits.clone();
            softmax_weights_with(simd, &mut all, 26.0, 0.7);
            for (start, end) in [(0, 1), (3, 20), (17, 50), (99, 100)] {
                let mut part = logits[start..end].to_vec();
                softmax_weights_with(simd, &mut part, 26.0, 0.7);
                assert_eq!(part, all[start..end], "{simd:?}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_minus_infinity_weighs_nothing() {
        for simd in Simd::available() {
            let mut x = [f32::NAN, f32::NEG_INFINITY, 1.0, -1e30, f32::NAN];
            softmax_weights_with(simd, &mut x, 1.0, 1.0);
            assert!(x[0].is_nan() && x[4].is_nan(), "{simd:?}");
            assert_eq!(x[1..4], [0.0, 1.0, 0.0], "{simd:?}");
        }
    }
}
