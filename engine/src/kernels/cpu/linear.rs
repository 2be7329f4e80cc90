//! A linear layer and an embedding in whatever format their weights are stored in.
//!
//! Dense weights stay in the mapped file. Quantised ones go through candle's [`QMatMul`], which keeps its
//! own copy. `quantize` at load turns the former into the latter.

use std::borrow::Cow;

use candle_core::{
    Device, Module, Shape,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};

use super::dense::{Dense, widen};
use crate::{
    error::EngineError,
    loader::{Dtype, Quantization, Tensor},
};

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

#[derive(Debug)]
enum Weights {
    Dense(Dense),
    Quantized(QMatMul),
}

impl Linear {
    /// Places a matrix, quantising it first if asked to and if its width allows.
    pub fn new(tensor: &Tensor, quantize: Option<Quantization>) -> Result<Self, EngineError> {
        let &[outputs, inputs] = tensor.shape.as_slice() else {
            return Err(EngineError::Compute(format!("{}: not a matrix", tensor.name)));
        };
        let weights = match (tensor.dtype, quantize.and_then(|target| block_format(target, inputs))) {
            (Dtype::Quantized(dtype), _) => {
                Weights::Quantized(candle(tensor, QMatMul::from_qtensor(stored(tensor, dtype)?))?)
            }
            (_, Some(format)) => Weights::Quantized(candle(tensor, quantized(tensor, format))?),
            (_, None) => Weights::Dense(
                Dense::new(tensor.clone())
                    .ok_or_else(|| EngineError::Compute(format!("{}: wrong size", tensor.name)))?,
            ),
        };
        let linear = Self { weights, inputs, outputs };
        if let Weights::Quantized(_) = linear.weights {
            // candle lays weights out anew when they are first used, on one thread; layers are placed on all.
            linear.forward(&vec![0.0; 2 * inputs], &mut Vec::new())?;
        }
        Ok(linear)
    }

    /// `out = x · wᵀ`; `out` is made as long as needed.
    pub fn forward(&self, x: &[f32], out: &mut Vec<f32>) -> Result<(), EngineError> {
        let rows = x.len() / self.inputs;
        match &self.weights {
            Weights::Dense(dense) => {
                out.resize(rows * self.outputs, 0.0);
                dense.forward(x, out);
            }
            Weights::Quantized(matmul) => {
                out.clear();
                for x in x.chunks(CANDLE_ROWS * self.inputs) {
                    append_product(matmul, x, self.inputs, out)?;
                }
            }
        }
        Ok(())
    }
}

/// Appends `x · wᵀ`.
fn append_product(matmul: &QMatMul, x: &[f32], inputs: usize, out: &mut Vec<f32>) -> Result<(), EngineError> {
    let x = candle_core::Tensor::from_slice(x, (x.len() / inputs, inputs), &Device::Cpu)?;
    let product = matmul.forward(&x)?;
    let (product, _) = product.storage_and_layout();
    let candle_core::Storage::Cpu(product) = &*product else {
        return Err(EngineError::Compute("a CPU product is not on the CPU".to_owned()));
    };
    out.extend_from_slice(product.as_slice::<f32>()?);
    Ok(())
}

/// The format to quantise to: K-quants need rows of whole super-blocks, as in llama.cpp's fallback.
fn block_format(target: Quantization, inputs: usize) -> Option<GgmlDType> {
    let preferred = match target {
        Quantization::Q4K => GgmlDType::Q4K,
        Quantization::Q8_0 => GgmlDType::Q8_0,
    };
    [preferred, GgmlDType::Q8_0].into_iter().find(|format| inputs.is_multiple_of(format.block_size()))
}

fn quantized(tensor: &Tensor, format: GgmlDType) -> candle_core::Result<QMatMul> {
    let mut wide = vec![0.0; tensor.shape.iter().product()];
    widen(tensor.bytes(), tensor.dtype, &mut wide);
    let wide = candle_core::Tensor::from_vec(wide, tensor.shape.as_slice(), &Device::Cpu)?;
    QMatMul::from_qtensor(QTensor::quantize(&wide, format)?)
}

fn stored(tensor: &Tensor, dtype: GgmlDType) -> Result<QTensor, EngineError> {
    candle(tensor, blocks(tensor.bytes(), dtype, &tensor.shape))
}

fn blocks(bytes: &[u8], dtype: GgmlDType, shape: &[usize]) -> candle_core::Result<QTensor> {
    // candle reads blocks in place and insists on their alignment; a fresh allocation always has it.
    let aligned = bytes.as_ptr().addr().is_multiple_of(8);
    let bytes = if aligned { Cow::Borrowed(bytes) } else { Cow::Owned(bytes.to_vec()) };
    QTensor::new(QStorage::from_data(bytes, &Device::Cpu, dtype)?, Shape::from(shape.to_vec()))
}

fn candle<T>(tensor: &Tensor, result: candle_core::Result<T>) -> Result<T, EngineError> {
    result.map_err(|error| EngineError::Compute(format!("{}: {error}", tensor.name)))
}

/// Token embeddings: rows of a matrix, widened when read.
#[derive(Debug)]
pub struct Embedding {
    tensor: Tensor,
    width: usize,
}

impl Embedding {
    /// The `[vocabulary, hidden]` matrix in `tensor`.
    pub fn new(tensor: &Tensor) -> Result<Self, EngineError> {
        let &[_, width] = tensor.shape.as_slice() else {
            return Err(EngineError::Compute(format!("{}: not a matrix", tensor.name)));
        };
        Ok(Self { tensor: tensor.clone(), width })
    }

    /// One row per token; `out` is made as long as needed.
    pub fn forward(&self, tokens: &[u32], out: &mut Vec<f32>) -> Result<(), EngineError> {
        out.resize(tokens.len() * self.width, 0.0);
        let row_bytes = self.tensor.bytes().len() / self.tensor.shape[0];
        for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(self.width)) {
            let start = token as usize * row_bytes;
            let row = self.tensor.bytes().get(start..start + row_bytes).ok_or_else(|| {
                EngineError::Compute(format!("token id {token} is not in the vocabulary of {}", self.tensor.shape[0]))
            })?;
            match self.tensor.dtype {
                Dtype::Quantized(dtype) => {
                    let row = blocks(row, dtype, &[1, self.width])?.dequantize(&Device::Cpu)?;
                    out.copy_from_slice(&row.flatten_all()?.to_vec1::<f32>()?);
                }
                dense => widen(row, dense, out),
            }
        }
        Ok(())
    }
}
