//! Every format on every instruction set, against the blocks as candle reads them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![expect(unsafe_code, reason = "the products under test are")]

use std::{borrow::Cow, convert::Infallible};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{disjoint::Disjoint, threads::Threads},
    ByteSimd, QuantizedRows, RowBlocks, Tiles,
};

const FORMATS: [GgmlDType; 4] = [GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q8_0];

/// A matrix as a file has it, and its numbers.
struct Matrix {
    dtype: GgmlDType,
    outputs: usize,
    inputs: usize,
    blocks: Vec<u8>,
    numbers: Vec<f32>,
}

impl Matrix {
    fn of_blocks(dtype: GgmlDType, outputs: usize, inputs: usize, blocks: Vec<u8>) -> Self {
        let storage = QStorage::from_data(Cow::Borrowed(&blocks), &Device::Cpu, dtype).unwrap();
        let tensor = QTensor::new(storage, (outputs, inputs)).unwrap();
        let numbers = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        Self { dtype, outputs, inputs, blocks, numbers }
    }

    fn quantized(dtype: GgmlDType, outputs: usize, inputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let numbers: Vec<f32> = (0..outputs * inputs).map(|_| rng.random_range(-1.0..1.0)).collect();
        let tensor = Tensor::from_vec(numbers, (outputs, inputs), &Device::Cpu).unwrap();
        let blocks = QTensor::quantize(&tensor, dtype).unwrap().data().unwrap().into_owned();
        Self::of_blocks(dtype, outputs, inputs, blocks)
    }

    /// Blocks of any bits at all, but for scales that are finite.
    fn extreme(dtype: GgmlDType, outputs: usize, inputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let bytes = dtype.type_size();
        let mut blocks = vec![0; outputs * inputs / dtype.block_size() * bytes];
        for block in blocks.chunks_exact_mut(bytes) {
            match rng.random_range(0..4) {
                0 => block.fill(0xff),
                1 => block.fill(0x80),
                _ => rng.fill_bytes(block),
            }
            let halves = match dtype {
                GgmlDType::Q6K => vec![208],
                GgmlDType::Q8_0 => vec![0],
                _ => vec![0, 2],
            };
            for at in halves {
                let half = half::f16::from_f32(rng.random_range(-2.0..2.0));
                block[at..at + 2].copy_from_slice(&half.to_le_bytes());
            }
        }
        Self::of_blocks(dtype, outputs, inputs, blocks)
    }

    fn tiles(&self, threads: &Threads) -> Tiles {
        let mut tiles = Tiles::new(self.dtype, self.outputs, self.inputs).unwrap().unwrap();
        let row = self.blocks.len() / self.outputs;
        let filled = tiles.fill(threads, |outputs| {
            Ok::<_, Infallible>(Cow::Borrowed(&self.blocks[outputs.start * row..outputs.end * row]))
        });
        filled.unwrap();
        tiles
    }
}

fn product(threads: &Threads, simd: ByteSimd, tiles: &Tiles, x: &[f32], (outputs, inputs): (usize, usize)) -> Vec<f32> {
    let mut rows = QuantizedRows::new(tiles.row_blocks());
    rows.quantize(threads, simd, x, inputs);
    let mut out = vec![f32::NAN; x.len() / inputs * outputs];
    let shared = Disjoint::new(&mut out);
    threads.ranges(tiles.columns(), 1, |columns| {
        // SAFETY: tasks have different columns.
        unsafe { tiles.product(simd, &rows, columns, &shared) };
    });
    out
}

/// `x` as the kernels see it: in signed bytes, with a scale per block.
fn rounded(x: &[f32], block: usize) -> Vec<f32> {
    let round = |block: &[f32]| {
        let scale = block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
        let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
        block.iter().map(|x| (x * inverse).round_ties_even() * scale).collect::<Vec<_>>()
    };
    x.chunks(block).flat_map(round).collect()
}

fn check(matrix: &Matrix, rows: usize, rng: &mut ChaCha8Rng) {
    let threads = Threads::new(2).unwrap();
    let tiles = matrix.tiles(&threads);
    let (inputs, outputs) = (matrix.inputs, matrix.outputs);
    let mut x: Vec<f32> = (0..rows * inputs).map(|_| rng.random_range(-3.0..3.0)).collect();
    // One row of zeros, one with a single large number.
    x[..inputs].fill(0.0);
    x[(rows - 1) * inputs + inputs / 2] = 5e4;
    let seen = rounded(&x, if tiles.row_blocks() == RowBlocks::K { 256 } else { 32 });
    let mut first: Option<Vec<f32>> = None;
    for simd in ByteSimd::available() {
        let out = product(&threads, simd, &tiles, &x, (outputs, inputs));
        for (index, &value) in out.iter().enumerate() {
            let (x, w) = (&seen[index / outputs * inputs..], &matrix.numbers[index % outputs * inputs..]);
            let terms = || (0..inputs).map(|k| f64::from(x[k]) * f64::from(w[k]));
            let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
            let close = (f64::from(value) - exact).abs() <= 2e-6 * size + 1e-9;
            assert!(close, "{:?} {simd:?} {rows}×{outputs}×{inputs} [{index}]: {value}, not {exact}", matrix.dtype);
        }
        let expected = first.get_or_insert_with(|| out.clone());
        assert!(*expected == out, "{:?} {simd:?}: not the bits of the best instruction set", matrix.dtype);
        for row in [0, rows / 2, rows - 1] {
            let alone =
                product(&Threads::new(1).unwrap(), simd, &tiles, &x[row * inputs..][..inputs], (outputs, inputs));
            assert!(alone == out[row * outputs..][..outputs], "{:?} {simd:?}: a row is the same alone", matrix.dtype);
        }
    }
}

#[test]
fn every_format_and_instruction_set_agrees_with_the_plain_sum() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for dtype in FORMATS {
        let block = dtype.block_size();
        for (rows, outputs, blocks) in [(1, 1, 1), (2, 16, 3), (3, 33, 2), (7, 40, 1), (11, 16, 2), (50, 20, 1)] {
            check(&Matrix::quantized(dtype, outputs, blocks * block, &mut rng), rows, &mut rng);
            check(&Matrix::extreme(dtype, outputs, blocks * block, &mut rng), rows, &mut rng);
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_in_its_row() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let threads = Threads::new(1).unwrap();
    for dtype in FORMATS {
        let matrix = Matrix::quantized(dtype, 16, 256, &mut rng);
        let tiles = matrix.tiles(&threads);
        for simd in ByteSimd::available() {
            let mut x = vec![1.0; 3 * 256];
            x[256 + 9] = f32::NAN;
            let out = product(&threads, simd, &tiles, &x, (16, 256));
            assert!(out[16..32].iter().all(|x| x.is_nan()));
            assert!(out[..16].iter().chain(&out[32..]).all(|x| x.is_finite()));
        }
    }
}

#[test]
fn any_bits_at_all_have_a_product_which_stays_in_its_output() {
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let threads = Threads::new(1).unwrap();
    for dtype in FORMATS {
        let mut matrix = Matrix::quantized(dtype, 20, 256, &mut rng);
        let row = matrix.blocks.len() / 20;
        // Every scale is a NaN in one, infinite or anything in the other.
        matrix.blocks[3 * row..4 * row].fill(0xff);
        rng.fill_bytes(&mut matrix.blocks[18 * row..19 * row]);
        matrix.blocks[18 * row..][..2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
        let tiles = matrix.tiles(&threads);
        for simd in ByteSimd::available() {
            let out = product(&threads, simd, &tiles, &[1.0; 256], (20, 256));
            assert!(out[3].is_nan(), "{dtype:?} {simd:?}");
            let healthy = out.iter().enumerate().filter(|(index, _)| ![3, 18].contains(index));
            assert!(healthy.clone().all(|(_, value)| value.is_finite()), "{dtype:?} {simd:?}");
        }
    }
}

#[test]
fn no_rows_have_no_product() {
    let threads = Threads::new(1).unwrap();
    let matrix = Matrix::quantized(GgmlDType::Q4K, 16, 256, &mut ChaCha8Rng::seed_from_u64(13));
    assert!(product(&threads, ByteSimd::best(), &matrix.tiles(&threads), &[], (16, 256)).is_empty());
}

#[test]
fn other_formats_and_widths_have_no_tiles() {
    for (dtype, inputs) in [(GgmlDType::Q2K, 256), (GgmlDType::F16, 256), (GgmlDType::Q4K, 128), (GgmlDType::Q8_0, 33)]
    {
        assert!(Tiles::new(dtype, 16, inputs).unwrap().is_none());
    }
}
