//! Every instruction set against f64.

use super::*;

fn exp_with(simd: Simd, x: &mut [f32]) {
    #[inline(always)]
    unsafe fn each<L: Lanes>(x: &mut [f32]) {
        for chunk in x.chunks_exact_mut(WIDEST) {
            for at in (0..WIDEST).step_by(L::WIDTH) {
                let at = chunk.as_mut_ptr().add(at);
                L::load_f32(at.cast()).exp().store(at);
            }
        }
    }
    // SAFETY: `Simd` was detected; reads and writes stay within the chunks.
    dispatch!(simd, each, [], (x: &mut [f32]));
}

#[test]
fn exp_is_within_a_millionth_over_the_whole_range() {
    for simd in Simd::available() {
        let x: Vec<f32> = (0..1 << 20).map(|index| index as f32 / (1 << 20) as f32 * 175.0 - 87.0).collect();
        let mut results = x.clone();
        exp_with(simd, &mut results);
        for (x, result) in x.iter().zip(results) {
            let exact = f64::from(*x).exp();
            let error = (f64::from(result) - exact).abs() / exact;
            assert!(error < 2.5e-7, "{simd:?}: e^{x} = {result}, off by {error}");
        }
    }
}

#[test]
fn exp_at_the_ends_is_0_or_infinite_and_keeps_what_is_no_number() {
    let (none, inf) = (f32::NAN, f32::INFINITY);
    for simd in Simd::available() {
        let mut x =
            [none, -inf, inf, 0.0, -0.0, 88.8, 1e30, -1e30, -104.5, -inf, -none, 88.72, -87.3, -200.0, 89.0, 1.0];
        exp_with(simd, &mut x);
        assert!(x[0].is_nan() && x[10].is_nan(), "{simd:?}: {x:?}");
        assert_eq!(x[1..10], [0.0, inf, 1.0, 1.0, inf, inf, 0.0, 0.0, 0.0], "{simd:?}");
        assert!(x[11].is_finite() && x[12] > f32::MIN_POSITIVE, "{simd:?}: {x:?}");
        assert_eq!(x[13..15], [0.0, inf], "{simd:?}");
    }
}

#[test]
fn the_small_operations_are_what_they_say() {
    #[inline(always)]
    unsafe fn all<L: Lanes>(x: &[f32; WIDEST], bytes: &[i8; WIDEST], out: &mut [[f32; WIDEST]; 6]) {
        for at in (0..WIDEST).step_by(L::WIDTH) {
            let v = L::load_f32(x.as_ptr().add(at).cast());
            v.round().store(out[0].as_mut_ptr().add(at));
            v.swap_pairs().store(out[1].as_mut_ptr().add(at));
            v.max(L::splat(1.0)).sub(v.min(L::splat(-1.0))).store(out[2].as_mut_ptr().add(at));
            v.div(L::splat(3.0)).mul(v).add(v).store(out[3].as_mut_ptr().add(at));
            L::load_i8(bytes.as_ptr().add(at).cast()).store(out[4].as_mut_ptr().add(at));
            out[5][at] = v.highest();
        }
    }
    let x: [f32; WIDEST] = std::array::from_fn(|index| (index as f32 - 7.0) * 1.25);
    let bytes: [i8; WIDEST] = std::array::from_fn(|index| (index as i8 - 8) * 16);
    for simd in Simd::available() {
        let mut results = [[f32::NEG_INFINITY; WIDEST]; 6];
        let (x, bytes, out) = (&x, &bytes, &mut results);
        // SAFETY: `Simd` was detected; reads and writes stay within the arrays.
        dispatch!(simd, all, [], (x: &[f32; WIDEST], bytes: &[i8; WIDEST], out: &mut [[f32; WIDEST]; 6]));
        for i in 0..WIDEST {
            let v = x[i];
            assert_eq!(results[0][i], v.round_ties_even(), "{simd:?}");
            assert_eq!(results[1][i], x[i ^ 1], "{simd:?}");
            assert_eq!(results[2][i], v.max(1.0) - v.min(-1.0), "{simd:?}");
            assert_eq!(results[3][i], v / 3.0 * v + v, "{simd:?}");
            assert_eq!(results[4][i], f32::from(bytes[i]), "{simd:?}");
        }
        assert_eq!(results[5].into_iter().fold(f32::NEG_INFINITY, f32::max), x[WIDEST - 1], "{simd:?}");
    }
}
