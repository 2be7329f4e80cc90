//! Matrix products with f32, f16 or bf16 weights that stay as they lie in the mapped file.
//!
//! `out[m][n] = Σ_k x[m][k] · w[n][k]`. Weights are widened to f32 in registers; where the CPU multiplies pairs of
//! bf16, rows are rounded to bf16 once and meet bf16 weights as they are. One output is always summed in the
//! same order, whatever the number of rows: [`BLOCK`] only decides how many are in flight.
#![expect(unsafe_code, reason = "unaligned weights; tasks write disjoint columns of one buffer")]
#![expect(clippy::needless_range_loop, reason = "indices name rows and columns of a block")]

#[cfg(target_arch = "x86_64")]
mod pairs;
#[cfg(not(target_arch = "x86_64"))]
mod pairs {
    pub(super) fn detected() -> bool {
        false
    }
}
mod peak;

use std::{marker::PhantomData, ops::Range};

use half::bf16;
pub(super) use peak::measure_peak;

use super::{
    disjoint::Disjoint,
    lanes::{Bf16, F16, F32, Lanes, Simd, Stored, dispatch, prefetch},
    threads::Threads,
};
use crate::loader::{Dtype, Tensor};

/// Rows and columns computed together: 16 accumulators fit the registers.
const BLOCK: usize = 4;
/// Bytes of weights that stay in a core's own cache while all rows go over them.
const STRIP: usize = 256 << 10;
/// How far ahead of the product each column's weights are fetched from memory.
const AHEAD: usize = 1024;
/// Numbers that are worth a task of rounding.
const ROUNDED: usize = 1 << 15;

/// A dense weight matrix `[outputs, inputs]`.
#[derive(Debug)]
pub(super) struct Dense {
    tensor: Tensor,
    outputs: usize,
    inputs: usize,
}

/// Rows as dense weights need them besides as they are.
#[derive(Debug, Default)]
pub(super) struct DenseRows {
    /// The bits of bf16; empty where the CPU can't multiply them.
    rounded: Vec<u16>,
}

impl DenseRows {
    /// Takes the numbers of `x`.
    pub(super) fn set(&mut self, threads: &Threads, x: &[f32]) {
        if !pairs::detected() {
            return;
        }
        self.rounded.resize(x.len(), 0);
        let rounded = Disjoint::new(&mut self.rounded);
        threads.ranges(x.len(), ROUNDED, |range| {
            // SAFETY: tasks have different ranges.
            let to = unsafe { rounded.part(range.clone()) };
            to.iter_mut().zip(&x[range]).for_each(|(to, x)| *to = bf16::from_f32(*x).to_bits());
        });
    }
}

impl Dense {
    /// The matrix in `tensor`; `None` if it is quantised or not a matrix.
    pub(super) fn new(tensor: Tensor) -> Option<Self> {
        let &[outputs, inputs] = tensor.shape.as_slice() else { return None };
        let bytes = dtype_bytes(tensor.dtype)?;
        (tensor.bytes().len() == outputs * inputs * bytes).then_some(Self { tensor, outputs, inputs })
    }

    /// How its numbers are stored.
    pub(super) fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    /// Bytes that a product reads.
    pub(super) fn bytes(&self) -> usize {
        self.tensor.bytes().len()
    }

    /// The outputs of `columns` for the rows of `x`, into `out`: `[rows, outputs]`.
    ///
    /// # Safety
    /// No other task writes these columns of `out`.
    pub(super) unsafe fn product(&self, rows: &DenseRows, x: &[f32], columns: Range<usize>, out: &Disjoint<'_, f32>) {
        // SAFETY: by this function's contract.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if self.tensor.dtype == Dtype::Bf16 && !rows.rounded.is_empty() {
                return pairs::product(&self.over(&rows.rounded, out), columns);
            }
            self.widened(Simd::best(), x, columns, out);
        }
    }

    /// The same with weights widened to f32.
    ///
    /// # Safety
    /// As [`Dense::product`].
    unsafe fn widened(&self, simd: Simd, x: &[f32], columns: Range<usize>, out: &Disjoint<'_, f32>) {
        let product = &self.over(x, out);
        // SAFETY: by this function's contract, and `over` checked the sizes.
        match self.tensor.dtype {
            Dtype::F32 => widened::<F32>(simd, product, columns),
            Dtype::F16 => widened::<F16>(simd, product, columns),
            Dtype::Bf16 => widened::<Bf16>(simd, product, columns),
            Dtype::Quantized(_) => unreachable!("`new` takes no quantised tensor"),
        }
    }

    fn over<'a, X>(&'a self, x: &'a [X], out: &'a Disjoint<'a, f32>) -> Product<'a, X> {
        assert!(x.len().is_multiple_of(self.inputs));
        Product { x, weights: self.tensor.bytes(), inputs: self.inputs, outputs: self.outputs, out }
    }
}

fn widened<S: Stored>(simd: Simd, product: &Product<'_, f32>, columns: Range<usize>) {
    // SAFETY: `Dense::widened`'s contract.
    dispatch!(simd, widened_columns::<S>, [<S: Stored>], (product: &Product<'_, f32>, columns: Range<usize>));
}

/// # Safety
/// As [`columns_of`].
#[inline(always)]
unsafe fn widened_columns<L: Lanes, S: Stored>(product: &Product<'_, f32>, columns: Range<usize>) {
    // SAFETY: by this function's contract.
    unsafe { columns_of::<Widened<L, S>>(product, columns) }
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

/// How a row's numbers meet weights in registers.
///
/// # Safety
/// Of every method: the CPU has the instruction set, and pointers are good for what is read.
trait Dot {
    /// A row's number.
    type X: Copy;
    type Row: Copy;
    type Weights: Copy;
    type Sums: Copy;
    /// Bytes per weight.
    const WEIGHT: usize;
    /// Numbers per register.
    const STEP: usize;

    unsafe fn zero() -> Self::Sums;
    unsafe fn row(from: *const Self::X) -> Self::Row;
    unsafe fn weights(from: *const u8) -> Self::Weights;
    unsafe fn add(sums: Self::Sums, row: Self::Row, weights: Self::Weights) -> Self::Sums;
    /// The sum of all, in an order that never changes.
    unsafe fn total(sums: Self::Sums) -> f32;
    /// The product of one number and one weight.
    unsafe fn one(x: *const Self::X, weight: *const u8) -> f32;
}

/// Weights stored as `S`, in lanes of f32.
struct Widened<L, S>(PhantomData<(L, S)>);

impl<L: Lanes, S: Stored> Dot for Widened<L, S> {
    type X = f32;
    type Row = L;
    type Weights = L;
    type Sums = L;
    const WEIGHT: usize = S::BYTES;
    const STEP: usize = L::WIDTH;

    #[inline(always)]
    unsafe fn zero() -> L {
        // SAFETY: the trait's contract, as for all methods here.
        unsafe { L::zero() }
    }
    #[inline(always)]
    unsafe fn row(from: *const f32) -> L {
        // SAFETY: as above.
        unsafe { L::load_f32(from.cast()) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const u8) -> L {
        // SAFETY: as above.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn add(sums: L, row: L, weights: L) -> L {
        // SAFETY: as above.
        unsafe { sums.multiply_add(row, weights) }
    }
    #[inline(always)]
    unsafe fn total(sums: L) -> f32 {
        // SAFETY: as above.
        unsafe { sums.sum() }
    }
    #[inline(always)]
    unsafe fn one(x: *const f32, weight: *const u8) -> f32 {
        // SAFETY: as above.
        unsafe { *x * S::load_one(weight) }
    }
}

/// Rows, weights and where their products go.
struct Product<'a, X> {
    x: &'a [X],
    weights: &'a [u8],
    inputs: usize,
    outputs: usize,
    out: &'a Disjoint<'a, f32>,
}

/// # Safety
/// No other task writes `columns`; the CPU has `D`'s instruction set.
#[inline(always)]
unsafe fn columns_of<D: Dot>(product: &Product<'_, D::X>, columns: Range<usize>) {
    let rows = product.x.len() / product.inputs;
    let strip = (STRIP / (product.inputs * D::WEIGHT)).max(BLOCK);
    for first in columns.clone().step_by(strip) {
        let last = (first + strip).min(columns.end);
        for row in (0..rows).step_by(BLOCK) {
            // SAFETY: the rows exist; the columns are this task's.
            unsafe {
                match rows - row {
                    1 => strip_of::<D, 1>(product, row, first..last),
                    2 => strip_of::<D, 2>(product, row, first..last),
                    3 => strip_of::<D, 3>(product, row, first..last),
                    _ => strip_of::<D, BLOCK>(product, row, first..last),
                }
            }
        }
    }
}

/// # Safety
/// As [`columns_of`]; there are `M` rows from `row` on.
#[inline(always)]
unsafe fn strip_of<D: Dot, const M: usize>(product: &Product<'_, D::X>, row: usize, columns: Range<usize>) {
    let mut column = columns.start;
    while column < columns.end {
        // SAFETY: by this function's contract.
        unsafe {
            if columns.end - column >= BLOCK {
                block::<D, M, BLOCK>(product, row, column);
                column += BLOCK;
            } else {
                block::<D, M, 1>(product, row, column);
                column += 1;
            }
        }
    }
}

/// # Safety
/// As [`strip_of`], for the `N` columns from `column` on.
#[inline(always)]
unsafe fn block<D: Dot, const M: usize, const N: usize>(product: &Product<'_, D::X>, row: usize, column: usize) {
    let inputs = product.inputs;
    let x = product.x[row * inputs..(row + M) * inputs].as_ptr();
    let weights = product.weights[column * inputs * D::WEIGHT..(column + N) * inputs * D::WEIGHT].as_ptr();
    // SAFETY: reads stay within those rows and columns; the columns of `out` are this task's.
    unsafe {
        let mut sums = [[D::zero(); N]; M];
        let whole = inputs / D::STEP * D::STEP;
        for k in (0..whole).step_by(D::STEP) {
            let mut w = [D::weights(weights.add(k * D::WEIGHT)); N];
            for n in 0..N {
                let from = weights.add((n * inputs + k) * D::WEIGHT);
                prefetch(from.wrapping_add(AHEAD));
                w[n] = D::weights(from);
            }
            for m in 0..M {
                let v = D::row(x.add(m * inputs + k));
                for n in 0..N {
                    sums[m][n] = D::add(sums[m][n], v, w[n]);
                }
            }
        }
        for m in 0..M {
            let start = (row + m) * product.outputs + column;
            let out = product.out.part(start..start + N);
            for n in 0..N {
                let rest = |k: usize| D::one(x.add(m * inputs + k), weights.add((n * inputs + k) * D::WEIGHT));
                out[n] = (whole..inputs).fold(D::total(sums[m][n]), |sum, k| sum + rest(k));
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use half::f16;
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

    /// Every way there is to compute a product.
    #[derive(Debug, Clone, Copy)]
    enum Way {
        Widened(Simd),
        /// As the engine does: with pairs of bf16 where the CPU has them.
        Best,
    }

    fn product(way: Way, dense: &Dense, x: &[f32]) -> Vec<f32> {
        let threads = Threads::new(2).unwrap();
        let mut out = vec![f32::NAN; x.len() / dense.inputs * dense.outputs];
        let mut rows = DenseRows::default();
        rows.set(&threads, x);
        let shared = Disjoint::new(&mut out);
        threads.ranges(dense.outputs, 3, |columns| {
            // SAFETY: tasks have different columns.
            unsafe {
                match way {
                    Way::Widened(simd) => dense.widened(simd, x, columns, &shared),
                    Way::Best => dense.product(&rows, x, columns, &shared),
                }
            }
        });
        out
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
                for way in Simd::available().into_iter().map(Way::Widened).chain([Way::Best]) {
                    let pairs = matches!(way, Way::Best) && dtype == Dtype::Bf16 && pairs::detected();
                    let seen = if pairs { store(&x, Dtype::Bf16).1 } else { x.clone() };
                    let out = product(way, &dense, &x);
                    for (index, &value) in out.iter().enumerate() {
                        let (row, column) = (index / outputs, index % outputs);
                        let exact: f64 = (0..inputs)
                            .map(|k| f64::from(seen[row * inputs + k]) * f64::from(weights[column * inputs + k]))
                            .sum();
                        assert!((f64::from(value) - exact).abs() < 1e-4, "{dtype:?} {way:?} [{row}][{column}]");
                    }
                    let alone = product(way, &dense, &x[(rows - 1) * inputs..]);
                    assert_eq!(alone, out[(rows - 1) * outputs..], "{way:?}: a row is the same alone");
                }
            }
        }
    }
}
