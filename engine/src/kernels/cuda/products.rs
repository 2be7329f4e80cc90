//! Products of rows with matrices: answers' rows by kernels that read the weights once for up to 64 of them, prompts'
//! rows by cuBLASLt.
//!
//! Either gives a row the same bits whatever else is in the step: the first sum in an order that is the matrix's
//! alone, the second have one algorithm for each matrix.
#![expect(unsafe_code, reason = "kernels are started")]

use std::{collections::HashMap, sync::Arc};

use super::{
    driver::CudaError,
    element::Element,
    format::Format,
    geometry::{Geometry, Kind, MOST_ROWS, Problem, WIDTHS},
    gpu::Gpu,
    launch::{Kernel, Shape, args},
    matrix::{Matrix, Stack},
    memory::Buffer,
    prompts::PromptProducts,
    rows::RowKernels,
};

/// Threads of a block.
const THREADS: u32 = 256;
/// Outputs and rows of a block of the kernels for any shape.
const ANY: usize = 8;

/// Computes linear layers. What it needs is looked up beforehand: nothing is, while a graph is recorded.
#[derive(Debug)]
pub(crate) struct Products {
    gpu: Arc<Gpu>,
    element: Element,
    kernels: HashMap<(Format, Kind, usize), Kernel>,
    any: HashMap<Kind, Kernel>,
    pub(super) prompts: PromptProducts,
    pub(super) workspace: Buffer<f32>,
    counters: Buffer<u32>,
}

/// Rows, and where their products go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) x: u64,
    pub(super) rows: usize,
    pub(super) out: u64,
    /// Numbers from one row of products to the next.
    pub(super) stride: usize,
}

/// How many rows of a step are answers', and how many, after them, prompts'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowKinds {
    pub(crate) answers: usize,
    pub(crate) prompts: usize,
}

impl Products {
    /// For steps of up to `rows` rows; `stacks` are all there are, with what becomes of each.
    pub(crate) fn new<'a>(
        gpu: &Arc<Gpu>,
        element: Element,
        rows: usize,
        stacks: impl Iterator<Item = (Kind, &'a Stack)>,
    ) -> Result<Self, CudaError> {
        let mut products = Self {
            gpu: Arc::clone(gpu),
            element,
            kernels: HashMap::new(),
            any: HashMap::new(),
            prompts: PromptProducts::new(gpu, element, rows)?,
            workspace: Buffer::new(gpu, 0)?,
            counters: Buffer::new(gpu, 0)?,
        };
        for kind in [Kind::Linear, Kind::Gated, Kind::Logits] {
            let any = if element == Element::F32 { "f32".to_owned() } else { format!("any_{0}_{0}", element.suffix()) };
            products.any.insert(kind, Kernel::new(gpu, &format!("{}_{any}", kind.name()))?);
        }
        let (mut workspace, mut blocks) = (0, 0);
        for (kind, stack) in stacks {
            // Rows of prompts that the library does not take, and gates that lie apart, are plain products.
            let kinds: &[Kind] = match kind {
                Kind::Linear => &[Kind::Linear],
                Kind::Gated => &[Kind::Linear, Kind::Gated],
                Kind::Logits => &[Kind::Logits],
            };
            if kind != Kind::Logits {
                products.prompts.prepare(stack)?;
            }
            for matrix in stack.parts.iter().filter(|matrix| matrix.format.is_quick(matrix.inputs)) {
                for (&kind, width) in kinds.iter().flat_map(|kind| WIDTHS.map(|width| (kind, width))) {
                    let geometry = products.prepare(kind, matrix, width)?;
                    workspace = workspace.max(geometry.workspace);
                    blocks = blocks.max(geometry.blocks);
                }
            }
        }
        products.workspace = Buffer::new(gpu, workspace)?;
        products.counters = Buffer::new(gpu, blocks)?;
        Ok(products)
    }

    fn prepare(&mut self, kind: Kind, matrix: &Matrix, width: usize) -> Result<Geometry, CudaError> {
        let geometry = problem(kind, matrix, width).geometry(self.gpu.chip());
        let key = (matrix.format, kind, width);
        if !self.kernels.contains_key(&key) {
            let name = format!("{}_{}_{}_{width}", kind.name(), matrix.format.name(), self.element.suffix());
            // Matrices of other shapes may want more stages.
            let most = self.gpu.chip().block_shared as u32;
            self.kernels.insert(key, Kernel::with_shared(&self.gpu, &name, most)?);
        }
        Ok(geometry)
    }

    /// `out = x · wᵀ`, row by row.
    pub(crate) fn forward(
        &self,
        stack: &Stack,
        x: &Buffer<u8>,
        rows: RowKinds,
        out: &Buffer<u8>,
    ) -> Result<(), CudaError> {
        self.forward_from(stack, (x, 0), rows, out)
    }

    /// The same without the first `skipped` rows of `x`.
    fn forward_from(
        &self,
        stack: &Stack,
        (x, skipped): (&Buffer<u8>, usize),
        rows: RowKinds,
        out: &Buffer<u8>,
    ) -> Result<(), CudaError> {
        let (inputs, bytes, stride) = (stack.inputs(), self.element.bytes(), stack.outputs());
        for (column, matrix) in stack.columns() {
            let operation = |first: usize, rows: usize| Operation {
                x: x.at((skipped + first) * inputs * bytes),
                rows,
                out: out.at((first * stride + column) * bytes),
                stride,
            };
            if rows.answers > 0 {
                self.answers(Kind::Linear, matrix, operation(0, rows.answers))?;
            }
            if rows.prompts > 0 {
                self.prompts(matrix, operation(rows.answers, rows.prompts))?;
            }
        }
        Ok(())
    }

    /// `out = silu(x · gateᵀ) · (x · upᵀ)`, row by row; `scratch` has room for both.
    pub(crate) fn gated(
        &self,
        stack: &Stack,
        x: &Buffer<u8>,
        rows: RowKinds,
        (out, scratch): (&Buffer<u8>, &Buffer<u8>),
        kernels: &RowKernels,
    ) -> Result<(), CudaError> {
        let (width, bytes) = (stack.outputs() / 2, self.element.bytes());
        // Gate and up in different formats, or rows of prompts, are multiplied first.
        let together = match stack.parts.as_slice() {
            [both] => {
                let operation = Operation { x: x.at(0), rows: rows.answers, out: out.at(0), stride: width };
                self.answers(Kind::Gated, both, operation)?;
                rows.answers
            }
            _ => 0,
        };
        let apart = RowKinds { answers: rows.answers - together, ..rows };
        self.forward_from(stack, (x, together), apart, scratch)?;
        let count = apart.answers + apart.prompts;
        kernels.gate(out.at(together * width * bytes), scratch, count, width)
    }

    /// Logits of `rows` rows.
    pub(crate) fn logits(
        &self,
        stack: &Stack,
        x: &Buffer<u8>,
        rows: usize,
        (out, stride): (&Buffer<f32>, usize),
    ) -> Result<(), CudaError> {
        for (column, matrix) in stack.columns() {
            self.answers(Kind::Logits, matrix, Operation { x: x.at(0), rows, out: out.at(column), stride })?;
        }
        Ok(())
    }

    fn prompts(&self, matrix: &Matrix, operation: Operation) -> Result<(), CudaError> {
        if !self.prompts.launch(matrix, operation)? {
            self.answers(Kind::Linear, matrix, operation)?;
        }
        Ok(())
    }

    fn answers(&self, kind: Kind, matrix: &Matrix, operation: Operation) -> Result<(), CudaError> {
        if !matrix.format.is_quick(matrix.inputs) {
            return self.any(kind, matrix, operation);
        }
        let (inputs, bytes) = (matrix.inputs, self.element.bytes());
        let out_bytes = if kind == Kind::Logits { size_of::<f32>() } else { bytes };
        for first in (0..operation.rows).step_by(MOST_ROWS) {
            let rows = MOST_ROWS.min(operation.rows - first);
            let part = Operation {
                x: operation.x + (first * inputs * bytes) as u64,
                rows,
                out: operation.out + (first * operation.stride * out_bytes) as u64,
                ..operation
            };
            self.quick(kind, matrix, part)?;
        }
        Ok(())
    }

    /// Up to [`MOST_ROWS`] rows.
    fn quick(&self, kind: Kind, matrix: &Matrix, operation: Operation) -> Result<(), CudaError> {
        let Operation { x, rows, out, stride } = operation;
        let width = WIDTHS.into_iter().find(|&width| width >= rows).unwrap_or(MOST_ROWS);
        let Some(kernel) = self.kernels.get(&(matrix.format, kind, width)) else {
            return Err(CudaError::Absent(format!("{} {} was not prepared", kind.name(), matrix.format.name())));
        };
        let problem = problem(kind, matrix, width);
        let Geometry { blocks, splits, stages, shared, .. } = problem.geometry(self.gpu.chip());
        let shape = Shape { grid: [blocks, splits, 1], block: THREADS, shared: shared as u32 };
        let arguments = args![
            out,
            stride,
            &matrix.weights,
            matrix.scales(),
            x,
            rows,
            problem.outputs,
            problem.inputs,
            &self.workspace,
            &self.counters,
            splits,
            stages,
        ];
        // SAFETY: weights, workspace and counters were made for this geometry; rows and their products by the callers.
        unsafe { kernel.launch(shape, arguments) }
    }

    /// Any number of rows, of any shape.
    fn any(&self, kind: Kind, matrix: &Matrix, operation: Operation) -> Result<(), CudaError> {
        let (Operation { x, rows, out, stride }, outputs) = (operation, problem(kind, matrix, MOST_ROWS).outputs);
        let shape = Shape::new([outputs.div_ceil(ANY), rows.div_ceil(ANY), 1], THREADS);
        let arguments = args![out, stride, &matrix.weights, x, rows, outputs, matrix.inputs];
        // SAFETY: the matrix is dense, and as large as it says; rows and their products by the callers.
        unsafe { self.any[&kind].launch(shape, arguments) }
    }
}

fn problem(kind: Kind, matrix: &Matrix, width: usize) -> Problem {
    let outputs = if kind == Kind::Gated { matrix.outputs / 2 } else { matrix.outputs };
    Problem { format: matrix.format, kind, width, outputs, inputs: matrix.inputs }
}
