//! Matrix products with f32, f16 or bf16 weights that stay as they lie in the mapped file.
//!
//! `out[m][n] = Σ_k x[m][k] · w[n][k]`, weights widened to f32 in registers. One output is always summed in
//! the same order, whatever the number of rows: [`BLOCK`] only decides how many are in flight.
#![expect(unsafe_code, reason = "unaligned weights; tasks write disjoint columns of one buffer")]
#![expect(clippy::needless_range_loop, reason = "indices name rows and columns of a block")]

use rayon::prelude::*;

use super::lanes::{Bf16, F16, F32, Lanes, Simd, Stored, dispatch};
use crate::loader::{Dtype, Tensor};

/// Rows and columns computed together: 16 accumulators fit the registers.
const BLOCK: usize = 4;
/// Below this many multiplications a product is not worth waking other threads for.
const SERIAL_WORK: usize = 1 << 19;

/// A dense weight matrix `[outputs, inputs]`.
#[derive(Debug)]
pub struct Dense {
    tensor: Tensor,
    outputs: usize,
    inputs: usize,
}

impl Dense {
    /// The matrix in `tensor`; `None` if it is quantised or not a matrix.
    pub fn new(tensor: Tensor) -> Option<Self> {
        let &[outputs, inputs] = tensor.shape.as_slice() else { return None };
        let bytes = dtype_bytes(tensor.dtype)?;
        (tensor.bytes().len() == outputs * inputs * bytes).then_some(Self { tensor, outputs, inputs })
    }

    /// `out = x · wᵀ` for the rows of `x`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        self.forward_with(Simd::best(), x, out);
    }

    fn forward_with(&self, simd: Simd, x: &[f32], out: &mut [f32]) {
        match self.tensor.dtype {
            Dtype::F32 => self.product::<F32>(simd, x, out),
            Dtype::F16 => self.product::<F16>(simd, x, out),
            Dtype::Bf16 => self.product::<Bf16>(simd, x, out),
            Dtype::Quantized(_) => unreachable!("`new` takes no quantised tensor"),
        }
    }

    fn product<S: Stored>(&self, simd: Simd, x: &[f32], out: &mut [f32]) {
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs);
        assert_eq!(out.len(), rows * self.outputs);
        let whole = Product {
            x,
            weights: self.tensor.bytes(),
            inputs: self.inputs,
            outputs: self.outputs,
            out: out.as_mut_ptr(),
        };
        let run = |first: usize, last: usize| {
            let product = &whole;
            // SAFETY: the asserts and `new` vouch for all sizes; tasks get disjoint column ranges.
            dispatch!(simd, columns::<S>, [<S: Stored>], (product: &Product<'_>, first: usize, last: usize));
        };
        if rows * self.inputs * self.outputs <= SERIAL_WORK {
            return run(0, self.outputs);
        }
        let tasks = self.outputs.div_ceil(BLOCK).min(rayon::current_num_threads() * 8);
        let step = self.outputs.div_ceil(tasks).next_multiple_of(BLOCK);
        (0..self.outputs.div_ceil(step)).into_par_iter().for_each(|task| {
            run(task * step, ((task + 1) * step).min(self.outputs));
        });
    }
}

/// Bytes per number; `None` when quantised.
pub(super) fn dtype_bytes(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::Bf16 => Some(2),
        Dtype::Quantized(_) => None,
    }
}

/// Dense little-endian numbers as f32; `bytes` has as many as `out`.
pub(super) fn widen(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    fn each<S: Stored>(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.chunks_exact(S::BYTES).zip(out) {
            // SAFETY: the chunk is one number.
            *out = unsafe { S::load_one(bytes.as_ptr()) };
        }
    }
    match dtype {
        Dtype::F32 => each::<F32>(bytes, out),
        Dtype::F16 => each::<F16>(bytes, out),
        Dtype::Bf16 => each::<Bf16>(bytes, out),
        Dtype::Quantized(_) => unreachable!("quantised tensors are dequantised by candle"),
    }
}

struct Product<'a> {
    x: &'a [f32],
    weights: &'a [u8],
    inputs: usize,
    outputs: usize,
    out: *mut f32,
}

// SAFETY: `out` is written only in disjoint columns per task.
unsafe impl Sync for Product<'_> {}

/// # Safety
/// Sizes agree; no other task writes columns `first..last`; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn columns<L: Lanes, S: Stored>(product: &Product<'_>, first: usize, last: usize) {
    let rows = product.x.len() / product.inputs;
    let mut column = first;
    while column < last {
        let wide = last - column >= BLOCK;
        let mut row = 0;
        while row < rows {
            let tall = rows - row >= BLOCK;
            // SAFETY: the block lies within the matrix and the columns of this task.
            unsafe {
                match (tall, wide) {
                    (true, true) => block::<L, S, BLOCK, BLOCK>(product, row, column),
                    (true, false) => block::<L, S, BLOCK, 1>(product, row, column),
                    (false, true) => block::<L, S, 1, BLOCK>(product, row, column),
                    (false, false) => block::<L, S, 1, 1>(product, row, column),
                }
            }
            row += if tall { BLOCK } else { 1 };
        }
        column += if wide { BLOCK } else { 1 };
    }
}

/// # Safety
/// As [`columns`]; rows `row..row + M` and columns `column..column + N` exist.
#[inline(always)]
unsafe fn block<L: Lanes, S: Stored, const M: usize, const N: usize>(product: &Product<'_>, row: usize, column: usize) {
    let inputs = product.inputs;
    // SAFETY: all pointers stay within rows and columns that exist, by this function's contract.
    unsafe {
        let x = product.x.as_ptr().add(row * inputs);
        let weights = product.weights.as_ptr().add(column * inputs * S::BYTES);
        let mut sums = [[L::zero(); N]; M];
        let whole = inputs / L::WIDTH * L::WIDTH;
        let mut k = 0;
        while k < whole {
            let mut w = [L::zero(); N];
            for n in 0..N {
                w[n] = S::load(weights.add((n * inputs + k) * S::BYTES));
            }
            for m in 0..M {
                let v = L::load_f32(x.add(m * inputs + k).cast());
                for n in 0..N {
                    sums[m][n] = sums[m][n].multiply_add(v, w[n]);
                }
            }
            k += L::WIDTH;
        }
        for m in 0..M {
            for n in 0..N {
                let mut sum = sums[m][n].sum();
                for k in whole..inputs {
                    sum += *x.add(m * inputs + k) * S::load_one(weights.add((n * inputs + k) * S::BYTES));
                }
                *product.out.add((row + m) * product.outputs + column + n) = sum;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use half::{bf16, f16};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::loader::weights::tensor_of;

    /// Little-endian bytes of `numbers` in `dtype`, and what they stand for.
    fn store(numbers: &[f32], dtype: Dtype) -> (Vec<u8>, Vec<f32>) {
        let each = |number: &f32| match dtype {
            Dtype::F32 => (number.to_le_bytes().to_vec(), *number),
            Dtype::F16 => (f16::from_f32(*number).to_le_bytes().to_vec(), f16::from_f32(*number).to_f32()),
            _ => (bf16::from_f32(*number).to_le_bytes().to_vec(), bf16::from_f32(*number).to_f32()),
        };
        let (bytes, numbers): (Vec<_>, Vec<_>) = numbers.iter().map(each).unzip();
        (bytes.concat(), numbers)
    }

    #[test]
    fn every_instruction_set_agrees_with_a_plain_sum_whatever_the_sizes() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for (rows, outputs, inputs) in
                [(1, 1, 1), (3, 5, 7), (4, 8, 16), (9, 70, 100), (50, 33, 257), (64, 512, 64)]
            {
                let mut random =
                    |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
                let x = random(rows * inputs);
                let (bytes, weights) = store(&random(outputs * inputs), dtype);
                let dense = Dense::new(tensor_of(&bytes, &[outputs, inputs], dtype)).unwrap();
                for simd in Simd::available() {
                    let mut out = vec![f32::NAN; rows * outputs];
                    dense.forward_with(simd, &x, &mut out);
                    for (index, &value) in out.iter().enumerate() {
                        let (row, column) = (index / outputs, index % outputs);
                        let exact: f64 = (0..inputs)
                            .map(|k| f64::from(x[row * inputs + k]) * f64::from(weights[column * inputs + k]))
                            .sum();
                        assert!((f64::from(value) - exact).abs() < 1e-4, "{dtype:?} {simd:?} [{row}][{column}]");
                    }
                    let mut alone = vec![f32::NAN; outputs];
                    dense.forward_with(simd, &x[(rows - 1) * inputs..], &mut alone);
                    assert_eq!(alone, out[(rows - 1) * outputs..], "{simd:?}: a row is the same alone");
                }
            }
        }
    }
}
