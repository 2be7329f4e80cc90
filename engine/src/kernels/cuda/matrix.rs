//! Weights of linear layers on the device; those that read the same rows are one stack.

use super::{format::Format, memory::Buffer};
use crate::kernels::cpu::WeightSize;

/// A matrix `[outputs, inputs]`.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(super) format: Format,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) weights: Buffer<u8>,
    /// One for each output, of formats that have them.
    pub(super) scales: Option<Buffer<f32>>,
}

impl Matrix {
    pub(super) fn bytes(&self) -> usize {
        self.weights.bytes() + self.scales.as_ref().map_or(0, Buffer::bytes)
    }

    /// The address of its scales, or 0.
    pub(super) fn scales(&self) -> u64 {
        self.scales.as_ref().map_or(0, |scales| scales.at(0))
    }
}

/// Matrices whose products are the columns of one row, side by side.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(super) parts: Vec<Matrix>,
}

impl Stack {
    /// Columns of all parts together.
    pub(super) fn outputs(&self) -> usize {
        self.parts.iter().map(|matrix| matrix.outputs).sum()
    }

    /// Numbers of a row.
    pub(super) fn inputs(&self) -> usize {
        self.parts.first().map_or(0, |matrix| matrix.inputs)
    }

    /// Each part with its first column.
    pub(super) fn columns(&self) -> impl Iterator<Item = (usize, &Matrix)> {
        self.parts.iter().scan(0, |column, matrix| {
            let first = *column;
            *column += matrix.outputs;
            Some((first, matrix))
        })
    }

    /// What a product reads and multiplies.
    pub(crate) fn size(&self) -> WeightSize {
        let bytes = self.parts.iter().map(Matrix::bytes).sum::<usize>() as u64;
        let weights = self.parts.iter().map(|matrix| matrix.outputs * matrix.inputs).sum::<usize>() as u64;
        WeightSize { bytes, weights }
    }
}
