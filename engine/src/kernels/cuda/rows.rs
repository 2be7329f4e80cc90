//! The small operations on rows: embedding, norm, activation.
#![expect(unsafe_code, reason = "kernels are started")]

use std::sync::Arc;

use super::{
    driver::CudaError,
    element::Element,
    gpu::Gpu,
    launch::{Kernel, Shape, args},
    memory::Buffer,
};

/// Threads of a block that embeds a row.
const EMBED_THREADS: u32 = 256;
/// Threads of a block that norms a row.
const NORM_THREADS: u32 = 512;
/// Threads of a block of activations, and numbers of each.
const GATE_THREADS: usize = 256;
const GATE_NUMBERS: usize = 8;

/// The kernels for rows of one kind of number.
#[derive(Debug)]
pub(crate) struct RowKernels {
    embed: Kernel,
    add_norm: Kernel,
    gate: Kernel,
}

impl RowKernels {
    pub(crate) fn new(gpu: &Arc<Gpu>, element: Element) -> Result<Self, CudaError> {
        let kernel = |name: &str| Kernel::new(gpu, &format!("{name}_{}", element.suffix()));
        Ok(Self { embed: kernel("embed")?, add_norm: kernel("add_norm")?, gate: kernel("gate")? })
    }

    /// `hidden[row] = table[token]`; a token below zero is one of `sampled`: -1 the first, -2 the second.
    pub(crate) fn embed(
        &self,
        hidden: &Buffer<f32>,
        table: &Buffer<u8>,
        (tokens, sampled): (u64, &Buffer<i32>),
        (rows, width): (usize, usize),
    ) -> Result<(), CudaError> {
        assert!(hidden.len() >= rows * width);
        let arguments = args![hidden, table, tokens, sampled, width];
        // SAFETY: there are as many tokens as rows; each is within the table, as the engine's tokenizer gave it or
        // the sampler drew it.
        unsafe { self.embed.launch(Shape::new([rows, 1, 1], EMBED_THREADS), arguments) }
    }

    /// `hidden += delta; out = norm(hidden) · weight`, of the first `count` rows, or of those that `rows` names, which
    /// stay as they are.
    pub(crate) fn add_norm(&self, norm: &Norm<'_>, count: usize) -> Result<(), CudaError> {
        let Norm { out, hidden, delta, weight, rows, epsilon } = *norm;
        let width = weight.len();
        let arguments = args![out, hidden, delta.map_or(0, |delta| delta.at(0)), weight, rows, width, epsilon];
        // SAFETY: all are as long as `count` rows; `rows` names rows that there are.
        unsafe { self.add_norm.launch(Shape::new([count, 1, 1], NORM_THREADS), arguments) }
    }

    /// `out = silu(gate) · up`, where each row of `gate_up` is both one after the other.
    pub(crate) fn gate(&self, out: u64, gate_up: &Buffer<u8>, rows: usize, width: usize) -> Result<(), CudaError> {
        let count = rows * width;
        let blocks = count.div_ceil(GATE_THREADS * GATE_NUMBERS);
        // SAFETY: `gate_up` has two numbers for each of `out`.
        unsafe { self.gate.launch(Shape::new([blocks, 1, 1], GATE_THREADS as u32), args![out, gate_up, width, count]) }
    }
}

/// A norm's operands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) out: &'a Buffer<u8>,
    pub(crate) hidden: &'a Buffer<f32>,
    pub(crate) delta: Option<&'a Buffer<u8>>,
    pub(crate) weight: &'a Buffer<f32>,
    /// An address of row numbers, or 0 for all rows.
    pub(crate) rows: u64,
    pub(crate) epsilon: f32,
}
