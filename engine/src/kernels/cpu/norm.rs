//! RMS norm, alone and with the residual addition that comes before it.
#![expect(unsafe_code, reason = "SIMD over rows")]

use super::{
    Threads, WeightSize,
    by_rows::by_rows,
    lanes::{Lanes, Simd, dispatch},
};

/// `x / sqrt(mean(x²) + epsilon) · weight`, per row of as many numbers as `weight` has.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Vec<f32>,
    epsilon: f32,
}

impl RmsNorm {
    /// The norm with these weights.
    pub fn new(weight: Vec<f32>, epsilon: f32) -> Self {
        Self { weight, epsilon }
    }

    /// What a step reads of it.
    pub fn size(&self) -> WeightSize {
        WeightSize { bytes: size_of_val(&*self.weight) as u64, weights: 0 }
    }

    /// `out = norm(x)`.
    pub fn forward(&self, threads: &Threads, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        assert_eq!(x.len(), out.len());
        by_rows(threads, width, [out], |rows, [out]| {
            self.rows_with(Simd::best(), &x[rows.start * width..rows.end * width], out);
        });
    }

    /// `x += y; out = norm(x)`.
    pub fn add_forward(&self, threads: &Threads, x: &mut [f32], y: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        assert_eq!(x.len(), y.len());
        by_rows(threads, width, [x, out], |rows, [x, out]| {
            let y = &y[rows.start * width..rows.end * width];
            for ((x, y), out) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
                add(x, y);
                self.rows_with(Simd::best(), x, out);
            }
        });
    }

    fn rows_with(&self, simd: Simd, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let norm = self;
            // SAFETY: `Simd` was detected; all three have as many numbers.
            dispatch!(simd, row, [], (norm: &RmsNorm, x: &[f32], out: &mut [f32]));
        }
    }
}

/// `x += y`.
fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// # Safety
/// `x` and `out` have as many numbers as the norm; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn row<L: Lanes>(norm: &RmsNorm, x: &[f32], out: &mut [f32]) {
    let weight = &norm.weight[..];
    let whole = x.len() / L::WIDTH * L::WIDTH;
    let rest = x.len() - whole;
    // SAFETY: indices stay below the common length.
    unsafe {
        let mut squares = L::zero();
        for at in (0..whole).step_by(L::WIDTH) {
            let x = L::load_f32(x.as_ptr().add(at).cast());
            squares = squares.multiply_add(x, x);
        }
        let last = L::load_part(x.as_ptr().add(whole), rest);
        let mean = squares.multiply_add(last, last).sum() / x.len() as f32;
        let scale = L::splat(1.0 / (mean + norm.epsilon).sqrt());
        for at in (0..whole).step_by(L::WIDTH) {
            let weight = L::load_f32(weight.as_ptr().add(at).cast());
            L::load_f32(x.as_ptr().add(at).cast()).mul(scale).mul(weight).store(out.as_mut_ptr().add(at));
        }
        let weight = L::load_part(weight.as_ptr().add(whole), rest);
        last.mul(scale).mul(weight).store_part(out.as_mut_ptr().add(whole), rest);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7919 + seed) % 1013) as f32 * 0.01 - 5.0).collect()
    }

    #[test]
    fn every_instruction_set_agrees_with_f64_at_every_width() {
        for simd in Simd::available() {
            for width in [1, 7, 16, 33, 100, 4096] {
                for factor in [1.0, 1e-12, 1e12] {
                    let norm = RmsNorm::new(numbers(width, 3), 1e-5);
                    let x: Vec<f32> = numbers(width, 8).iter().map(|number| number * factor).collect();
                    let mut out = vec![f32::NAN; width];
                    norm.rows_with(simd, &x, &mut out);
                    let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                    for ((x, weight), out) in x.iter().zip(&norm.weight).zip(out) {
                        let exact = f64::from(*x) / (mean + 1e-5f32 as f64).sqrt() * f64::from(*weight);
                        assert!(
                            (f64::from(out) - exact).abs() < 1e-5 * exact.abs() + 1e-30,
                            "{simd:?} {width} {factor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_alone_in_a_batch_and_with_the_addition_in_it() {
        let (width, rows) = (1000, 70);
        let norm = RmsNorm::new(numbers(width, 1), 1e-6);
        let (x, y) = (numbers(width * rows, 5), numbers(width * rows, 6));
        let mut sums = x.clone();
        add(&mut sums, &y);
        let mut alone = vec![0.0; x.len()];
        for (x, out) in sums.chunks_exact(width).zip(alone.chunks_exact_mut(width)) {
            norm.forward(&Threads::new(1).unwrap(), x, out);
        }
        for count in [1, 2, 3] {
            let threads = Threads::new(count).unwrap();
            let (mut hidden, mut out) = (x.clone(), vec![0.0; x.len()]);
            norm.add_forward(&threads, &mut hidden, &y, &mut out);
            assert!(hidden == sums && out == alone);
            norm.forward(&threads, &hidden, &mut out);
            assert!(hidden == sums && out == alone);
        }
    }
}
