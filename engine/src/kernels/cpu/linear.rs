//! Linear layers in whatever format their weights are stored in.
//!
//! Dense weights stay in the mapped file. Quantised ones are laid out anew in [tiles](super::quantized), and the
//! file's pages are let go; formats without tiles go through candle's [`QMatMul`], which keeps its own copy.
//! Layers that read the same rows are computed in one go: the rows are brought into the form that the weights
//! need once, and all threads go through the outputs of all layers.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one buffer")]

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    ops::{Add, Range},
};

use candle_core::{
    Device, Module, Shape,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};

use super::{
    dense::{Dense, DenseRows, widen},
    disjoint::Disjoint,
    gate::silu_gate,
    limits::Arithmetic,
    quantized::{ByteSimd, QuantizedRows, RowBlocks, Tiles},
    threads::Threads,
};
use crate::{
    error::EngineError,
    loader::{Dtype, Quantization, Tensor},
};

/// Outputs that are computed together.
const UNIT: usize = 16;
/// Multiplications that are worth a task.
const TASK_WORK: usize = 1 << 18;
/// Units of gate and projection that are still in a core's cache when they meet.
const GATE_UNITS: usize = 8;
/// Rows given to candle at once: from 32 on it would keep yet another copy of Q4_K weights, in AMX's layout, and
/// compute a row differently than in a smaller batch.
const CANDLE_ROWS: usize = 28;

/// `[outputs, inputs]` weights applied to rows.
#[derive(Debug)]
pub struct Linear {
    weights: Weights,
    inputs: usize,
    outputs: usize,
}

/// Weights as they lie in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightSize {
    /// Bytes, all of which a step reads.
    pub bytes: u64,
    /// Numbers in matrices: what a row is multiplied with.
    pub weights: u64,
}

impl Add for WeightSize {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, weights: self.weights + other.weights }
    }
}

#[derive(Debug)]
enum Weights {
    Dense(Dense),
    Tiles(Tiles),
    Candle(QMatMul),
}

/// What rows must be for a layer's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Dense,
    K,
    ThirtyTwo,
    Candle,
}

impl Linear {
    /// Places a matrix, quantising it first if asked to and if its width allows.
    pub fn new(tensor: &Tensor, quantize: Option<Quantization>, threads: &Threads) -> Result<Self, EngineError> {
        let &[outputs, inputs] = tensor.shape.as_slice() else {
            return Err(EngineError::Compute(format!("{}: not a matrix", tensor.name)));
        };
        let weights = match (tensor.dtype, quantize.and_then(|target| block_format(target, inputs))) {
            (Dtype::Quantized(format), _) => stored(tensor, format, threads)?,
            (_, Some(format)) => quantized(tensor, format, threads)?,
            (_, None) => Weights::Dense(
                Dense::new(tensor.clone())
                    .ok_or_else(|| EngineError::Compute(format!("{}: wrong size", tensor.name)))?,
            ),
        };
        Ok(Self { weights, inputs, outputs })
    }

    /// What a product reads and multiplies.
    pub fn size(&self) -> WeightSize {
        let weights = self.outputs * self.inputs;
        let bytes = match &self.weights {
            Weights::Dense(dense) => dense.bytes(),
            Weights::Tiles(tiles) => tiles.bytes(),
            Weights::Candle(QMatMul::QTensor(tensor)) => tensor.storage_size_in_bytes(),
            Weights::Candle(_) => weights * size_of::<f32>(),
        };
        WeightSize { bytes: bytes as u64, weights: weights as u64 }
    }

    /// What it is multiplied in.
    pub fn arithmetic(&self) -> Arithmetic {
        match &self.weights {
            Weights::Dense(dense) => Arithmetic::Dense(dense.dtype()),
            Weights::Tiles(_) | Weights::Candle(_) => Arithmetic::Bytes,
        }
    }

    fn units(&self) -> usize {
        self.outputs.div_ceil(UNIT)
    }

    fn form(&self) -> Form {
        match &self.weights {
            Weights::Dense(_) => Form::Dense,
            Weights::Tiles(tiles) => match tiles.row_blocks() {
                RowBlocks::K => Form::K,
                RowBlocks::ThirtyTwo => Form::ThirtyTwo,
            },
            Weights::Candle(_) => Form::Candle,
        }
    }

    /// The columns of `units` of `x · wᵀ`.
    ///
    /// # Safety
    /// No other task writes these columns of `out`.
    unsafe fn product(&self, rows: &Rows<'_>, units: Range<usize>, out: &Disjoint<'_, f32>) {
        match &self.weights {
            Weights::Dense(dense) => {
                let columns = units.start * UNIT..(units.end * UNIT).min(self.outputs);
                // SAFETY: by this function's contract.
                unsafe { dense.product(&rows.forms.dense, rows.x, columns, out) };
            }
            Weights::Tiles(tiles) => {
                let quantized = match tiles.row_blocks() {
                    RowBlocks::K => &rows.forms.k,
                    RowBlocks::ThirtyTwo => &rows.forms.thirty_two,
                };
                // SAFETY: by this function's contract.
                unsafe { tiles.product(ByteSimd::best(), quantized, units, out) };
            }
            // Made as a whole, on threads of candle's own.
            Weights::Candle(_) => {}
        }
    }
}

/// Computes linear layers; keeps the memory that this takes from one product to the next.
#[derive(Debug)]
pub struct Products {
    forms: Forms,
}

/// Rows in the forms that weights need.
#[derive(Debug)]
struct Forms {
    dense: DenseRows,
    k: QuantizedRows,
    thirty_two: QuantizedRows,
}

struct Rows<'a> {
    x: &'a [f32],
    forms: &'a Forms,
}

impl Default for Products {
    fn default() -> Self {
        let (k, thirty_two) = (QuantizedRows::new(RowBlocks::K), QuantizedRows::new(RowBlocks::ThirtyTwo));
        Self { forms: Forms { dense: DenseRows::default(), k, thirty_two } }
    }
}

impl Products {
    /// `out = x · wᵀ` for each layer; `out`s are made as long as needed.
    pub fn forward<const N: usize>(
        &mut self,
        threads: &Threads,
        x: &[f32],
        layers: [(&Linear, &mut Vec<f32>); N],
    ) -> Result<(), EngineError> {
        let linears = layers.each_ref().map(|(linear, _)| *linear);
        let mut outs = layers.map(|(_, out)| out);
        self.prepare(threads, x, &linears, &mut outs)?;
        let rows = Rows { x, forms: &self.forms };
        let outs = outs.map(|out| Disjoint::new(out.as_mut_slice()));
        let all = linears.iter().map(|linear| linear.units()).sum();
        threads.ranges(all, least_units(x.len(), all), |range| {
            let mut first = 0;
            for (linear, out) in linears.iter().zip(&outs) {
                let part = range.start.max(first)..range.end.min(first + linear.units());
                if part.start < part.end {
                    // SAFETY: tasks have different units, which are different columns.
                    unsafe { linear.product(&rows, part.start - first..part.end - first, out) };
                }
                first += linear.units();
            }
        });
        Ok(())
    }

    /// `out = silu(x · gateᵀ) · (x · upᵀ)`; `out` is made as long as needed.
    pub fn gated(
        &mut self,
        threads: &Threads,
        x: &[f32],
        (gate, up): (&Linear, &Linear),
        (out, scratch): (&mut Vec<f32>, &mut Vec<f32>),
    ) -> Result<(), EngineError> {
        self.prepare(threads, x, &[gate, up], &mut [&mut *out, &mut *scratch])?;
        let (rows, width) = (Rows { x, forms: &self.forms }, gate.outputs);
        let (out, scratch) = (Disjoint::new(out), Disjoint::new(scratch));
        threads.ranges(gate.units(), least_units(2 * x.len(), gate.units()), |range| {
            for first in range.clone().step_by(GATE_UNITS) {
                let units = first..(first + GATE_UNITS).min(range.end);
                let columns = units.start * UNIT..(units.end * UNIT).min(width);
                // SAFETY: tasks have different units, which are different columns.
                unsafe {
                    gate.product(&rows, units.clone(), &out);
                    up.product(&rows, units, &scratch);
                    for row in 0..x.len() / gate.inputs {
                        let part = row * width + columns.start..row * width + columns.end;
                        silu_gate(out.part(part.clone()), scratch.part(part));
                    }
                }
            }
        });
        Ok(())
    }

    /// Brings `x` into the forms that `linears` need, and their products into shape.
    fn prepare(
        &mut self,
        threads: &Threads,
        x: &[f32],
        linears: &[&Linear],
        outs: &mut [&mut Vec<f32>],
    ) -> Result<(), EngineError> {
        let inputs = linears[0].inputs;
        let needs = |wanted: Form| linears.iter().any(|linear| linear.form() == wanted);
        if needs(Form::Dense) {
            self.forms.dense.set(threads, x);
        }
        if needs(Form::K) {
            self.forms.k.quantize(threads, ByteSimd::best(), x, inputs);
        }
        if needs(Form::ThirtyTwo) {
            self.forms.thirty_two.quantize(threads, ByteSimd::best(), x, inputs);
        }
        for (linear, out) in linears.iter().zip(outs) {
            debug_assert_eq!(linear.inputs, inputs);
            match &linear.weights {
                Weights::Candle(matmul) => candle_product(matmul, x, inputs, out)?,
                _ => out.resize(x.len() / inputs * linear.outputs, 0.0),
            }
        }
        Ok(())
    }
}

/// The fewest units, of `units`, that are worth a task: a unit is [`UNIT`] products of each of `numbers`.
fn least_units(numbers: usize, units: usize) -> usize {
    let least = (TASK_WORK / (UNIT * numbers).max(1)).max(1);
    if 2 * least >= units { units } else { least }
}

/// `out = x · wᵀ`, by candle.
fn candle_product(matmul: &QMatMul, x: &[f32], inputs: usize, out: &mut Vec<f32>) -> Result<(), EngineError> {
    out.clear();
    for x in x.chunks(CANDLE_ROWS * inputs) {
        let x = candle_core::Tensor::from_slice(x, (x.len() / inputs, inputs), &Device::Cpu)?;
        let product = matmul.forward(&x)?;
        let (product, _) = product.storage_and_layout();
        let candle_core::Storage::Cpu(product) = &*product else {
            return Err(EngineError::Compute("a CPU product is not on the CPU".to_owned()));
        };
        out.extend_from_slice(product.as_slice::<f32>()?);
    }
    Ok(())
}

/// The format to quantise to: K-quants need rows of whole super-blocks, as in llama.cpp's fallback.
fn block_format(target: Quantization, inputs: usize) -> Option<GgmlDType> {
    let preferred = match target {
        Quantization::Q4K => GgmlDType::Q4K,
        Quantization::Q8_0 => GgmlDType::Q8_0,
        Quantization::Fp8 => return None,
    };
    [preferred, GgmlDType::Q8_0].into_iter().find(|format| inputs.is_multiple_of(format.block_size()))
}

/// Places blocks as they are in the file.
fn stored(tensor: &Tensor, format: GgmlDType, threads: &Threads) -> Result<Weights, EngineError> {
    let row = tensor.bytes().len() / tensor.shape[0];
    let tiles = tiles(tensor, format, threads, |outputs| {
        Ok(Cow::Borrowed(&tensor.bytes()[outputs.start * row..outputs.end * row]))
    })?;
    match tiles {
        Some(tiles) => Ok(Weights::Tiles(tiles)),
        None => {
            candle(tensor, blocks(tensor.bytes(), format, &tensor.shape)).and_then(|blocks| fallback(tensor, blocks))
        }
    }
}

/// Quantises dense weights, a few rows at a time.
fn quantized(tensor: &Tensor, format: GgmlDType, threads: &Threads) -> Result<Weights, EngineError> {
    let tiles = tiles(tensor, format, threads, |outputs| {
        let blocks = quantize(tensor, format, outputs)?;
        Ok(Cow::Owned(candle(tensor, blocks.data())?.into_owned()))
    })?;
    match tiles {
        Some(tiles) => Ok(Weights::Tiles(tiles)),
        None => quantize(tensor, format, 0..tensor.shape[0]).and_then(|blocks| fallback(tensor, blocks)),
    }
}

/// The blocks of some of a dense matrix's outputs.
fn quantize(tensor: &Tensor, format: GgmlDType, outputs: Range<usize>) -> Result<QTensor, EngineError> {
    let (width, row) = (tensor.shape[1], tensor.bytes().len() / tensor.shape[0]);
    let mut wide = vec![0.0; outputs.len() * width];
    widen(&tensor.bytes()[outputs.start * row..outputs.end * row], tensor.dtype, &mut wide);
    let wide = candle_core::Tensor::from_vec(wide, (outputs.len(), width), &Device::Cpu);
    candle(tensor, wide.and_then(|wide| QTensor::quantize(&wide, format)))
}

/// The blocks of a dense matrix, as GGUF stores them.
#[cfg(feature = "cuda")]
pub(crate) fn quantize_rows(tensor: &Tensor, format: GgmlDType, threads: &Threads) -> Result<Vec<u8>, EngineError> {
    use std::sync::{Mutex, PoisonError};
    /// Outputs that one task quantises.
    const TOGETHER: usize = 64;
    let outputs = tensor.shape[0];
    let parts: Vec<_> = (0..outputs.div_ceil(TOGETHER)).map(|_| Mutex::new(Ok(Vec::new()))).collect();
    threads.each(parts.len(), |index| {
        let first = index * TOGETHER;
        let blocks = quantize(tensor, format, first..outputs.min(first + TOGETHER));
        let blocks = blocks.and_then(|blocks| Ok(candle(tensor, blocks.data())?.into_owned()));
        *parts[index].lock().unwrap_or_else(PoisonError::into_inner) = blocks;
    });
    let parts = parts.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(parts.collect::<Result<Vec<_>, EngineError>>()?.concat())
}

/// The tiles of a matrix whose blocks `blocks` gives; the tensor's pages are no longer needed then.
fn tiles<'a>(
    tensor: &'a Tensor,
    format: GgmlDType,
    threads: &Threads,
    blocks: impl Fn(Range<usize>) -> Result<Cow<'a, [u8]>, EngineError> + Sync,
) -> Result<Option<Tiles>, EngineError> {
    let memory = |error| EngineError::Compute(format!("{}: no memory for the weights: {error}", tensor.name));
    let Some(mut tiles) = Tiles::new(format, tensor.shape[0], tensor.shape[1]).map_err(memory)? else {
        return Ok(None);
    };
    tiles.fill(threads, blocks)?;
    tensor.release();
    Ok(Some(tiles))
}

/// candle's product; it lays weights out anew when they are first used, which is now.
fn fallback(tensor: &Tensor, blocks: QTensor) -> Result<Weights, EngineError> {
    let matmul = candle(tensor, QMatMul::from_qtensor(blocks))?;
    candle_product(&matmul, &vec![0.0; 2 * tensor.shape[1]], tensor.shape[1], &mut Vec::new())?;
    Ok(Weights::Candle(matmul))
}

/// Blocks as candle holds them.
pub(crate) fn blocks(bytes: &[u8], dtype: GgmlDType, shape: &[usize]) -> candle_core::Result<QTensor> {
    // candle reads blocks in place and insists on their alignment; a fresh allocation always has it.
    let aligned = bytes.as_ptr().addr().is_multiple_of(8);
    let bytes = if aligned { Cow::Borrowed(bytes) } else { Cow::Owned(bytes.to_vec()) };
    QTensor::new(QStorage::from_data(bytes, &Device::Cpu, dtype)?, Shape::from(shape.to_vec()))
}

fn candle<T>(tensor: &Tensor, result: candle_core::Result<T>) -> Result<T, EngineError> {
    result.map_err(|error| EngineError::Compute(format!("{}: {error}", tensor.name)))
}
