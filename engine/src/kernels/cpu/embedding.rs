//! Token embeddings, read from the file row by row.

use candle_core::Device;

use super::{dense::widen, linear::blocks};
use crate::{
    error::EngineError,
    loader::{Dtype, Tensor},
};

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

    /// Bytes that a token's row takes.
    pub fn row_bytes(&self) -> usize {
        self.tensor.bytes().len() / self.tensor.shape[0]
    }

    /// One row per token; `out` is made as long as needed.
    pub fn forward(&self, tokens: &[u32], out: &mut Vec<f32>) -> Result<(), EngineError> {
        out.resize(tokens.len() * self.width, 0.0);
        let row_bytes = self.row_bytes();
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
