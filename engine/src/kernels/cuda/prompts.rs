//! Products of prompts' rows: many at once, so that the tensor cores are the limit and cuBLASLt comes near it.
#![expect(unsafe_code, reason = "kernels are started")]

use std::{collections::HashMap, sync::Arc};

use super::{
    blas::{Blas, Operands, Product, Sizes},
    driver::CudaError,
    element::Element,
    format::Format,
    gpu::Gpu,
    launch::{Kernel, Shape, args},
    matrix::{Matrix, Stack},
    memory::Buffer,
    products::Operation,
};

/// The first chip with 8-bit floating-point tensor cores.
const FP8_CAPABILITY: (u32, u32) = (8, 9);

/// Bytes that the library's operands, and their rows, are multiples of: its quick algorithms read as many at once.
const ALIGNMENT: u64 = 16;

/// The library's products, with what comes before and after them.
#[derive(Debug)]
pub(super) struct PromptProducts {
    gpu: Arc<Gpu>,
    element: Element,
    /// Rows of the largest step.
    rows: usize,
    blas: Option<Arc<Blas>>,
    /// Those that the library has; rows are computed as answers' where it has none.
    pub(super) products: HashMap<(Sizes, Operands), Option<Product>>,
    dequantize: HashMap<Format, Kernel>,
    /// A quantised matrix as a dense one.
    dense: Buffer<u8>,
    fp8: Option<Fp8>,
}

/// Rows as bytes, and their products before they are scaled.
#[derive(Debug)]
struct Fp8 {
    quantize: Kernel,
    scale: Kernel,
    rows: Buffer<u8>,
    scales: Buffer<f32>,
    product: Buffer<f32>,
}

impl PromptProducts {
    pub(super) fn new(gpu: &Arc<Gpu>, element: Element, rows: usize) -> Result<Self, CudaError> {
        let blas = match Blas::new(gpu) {
            Ok(blas) => Some(blas),
            Err(error @ CudaError::Absent(_)) => {
                tracing::warn!(%error, "prompts are computed by slower kernels");
                None
            }
            Err(error) => return Err(error),
        };
        let (products, dequantize) = (HashMap::new(), HashMap::new());
        let dense = Buffer::new(gpu, 0)?;
        Ok(Self { gpu: Arc::clone(gpu), element, rows, blas, products, dequantize, dense, fp8: None })
    }

    /// Looks up what the products of a stack need.
    pub(super) fn prepare(&mut self, stack: &Stack) -> Result<(), CudaError> {
        let Some(blas) = self.blas.clone() else { return Ok(()) };
        let stride = stack.outputs();
        for matrix in &stack.parts {
            let key @ (sizes, operands) = self.key(matrix, stride);
            if !self.products.contains_key(&key) {
                self.products.insert(key, Product::new(&blas, sizes, operands, self.rows)?);
            }
            match (operands, matrix.format) {
                (Operands::Fp8, _) => self.prepare_fp8(matrix)?,
                (_, Format::Dense(_)) => {}
                (_, format) => self.prepare_dense(format, matrix)?,
            }
        }
        Ok(())
    }

    /// What the product with a matrix is chosen by.
    fn key(&self, matrix: &Matrix, stride: usize) -> (Sizes, Operands) {
        let Matrix { format, outputs, inputs, .. } = *matrix;
        let fp8 = format == Format::Fp8
            && outputs == stride
            && outputs.is_multiple_of(16)
            && self.gpu.info().capability >= FP8_CAPABILITY;
        let operands = if fp8 { Operands::Fp8 } else { Operands::Same(self.element) };
        (Sizes { outputs, inputs, stride }, operands)
    }

    fn prepare_dense(&mut self, format: Format, matrix: &Matrix) -> Result<(), CudaError> {
        if !self.dequantize.contains_key(&format) {
            let name = format!("dequantize_{}_{}", format.name(), self.element.suffix());
            self.dequantize.insert(format, Kernel::new(&self.gpu, &name)?);
        }
        self.dense.grow(matrix.outputs * matrix.inputs * self.element.bytes())
    }

    fn prepare_fp8(&mut self, matrix: &Matrix) -> Result<(), CudaError> {
        let mut fp8 = match self.fp8.take() {
            Some(fp8) => fp8,
            None => Fp8 {
                quantize: Kernel::new(&self.gpu, &format!("quantize_fp8_{}", self.element.suffix()))?,
                scale: Kernel::new(&self.gpu, &format!("scale_fp8_{}", self.element.suffix()))?,
                rows: Buffer::new(&self.gpu, 0)?,
                scales: Buffer::new(&self.gpu, self.rows)?,
                product: Buffer::new(&self.gpu, 0)?,
            },
        };
        fp8.rows.grow(self.rows * matrix.inputs)?;
        fp8.product.grow(self.rows * matrix.outputs)?;
        self.fp8 = Some(fp8);
        Ok(())
    }

    /// Starts a product; false where the library has none of that shape, whatever the rows.
    pub(super) fn launch(&self, matrix: &Matrix, operation: Operation) -> Result<bool, CudaError> {
        let key @ (_, operands) = self.key(matrix, operation.stride);
        let Some(product) = self.products.get(&key).and_then(Option::as_ref) else { return Ok(false) };
        if operands != Operands::Fp8 && !self.is_aligned(matrix, operation) {
            return Ok(false);
        }
        let Operation { x, rows, out, .. } = operation;
        // SAFETY: the product was chosen for these sizes; rows and their products by the callers, the rest was
        // prepared for the largest step.
        unsafe {
            match (operands, &self.fp8) {
                (Operands::Fp8, Some(fp8)) => {
                    let inputs = matrix.inputs;
                    let quantize = args![&fp8.rows, &fp8.scales, x, inputs];
                    fp8.quantize.launch(Shape::new([rows, 1, 1], 256), quantize)?;
                    product.launch(matrix.weights.at(0), fp8.rows.at(0), rows, fp8.product.at(0))?;
                    let scale = args![out, &fp8.product, &fp8.scales, matrix.scales(), matrix.outputs];
                    fp8.scale.launch(Shape::new([rows, 1, 1], 256), scale)?;
                }
                _ => {
                    let weights = match matrix.format {
                        Format::Dense(_) => matrix.weights.at(0),
                        format => self.dequantized(format, matrix)?,
                    };
                    product.launch(weights, x, rows, out)?;
                }
            }
        }
        Ok(true)
    }

    /// Whether all rows and their products are aligned; if one is, so are the others.
    fn is_aligned(&self, matrix: &Matrix, operation: Operation) -> bool {
        let row = |numbers: usize| (numbers * self.element.bytes()) as u64;
        let Operation { x, out, stride, .. } = operation;
        [x, out, row(matrix.inputs), row(stride)].iter().all(|bytes| bytes.is_multiple_of(ALIGNMENT))
    }

    fn dequantized(&self, format: Format, matrix: &Matrix) -> Result<u64, CudaError> {
        let Matrix { outputs, inputs, .. } = *matrix;
        let Some(kernel) = self.dequantize.get(&format) else {
            return Err(CudaError::Absent(format!("{} was not prepared", format.name())));
        };
        // SAFETY: the dense matrix has room for the largest that there is.
        unsafe {
            if format == Format::Fp8 {
                let arguments = args![&self.dense, &matrix.weights, matrix.scales(), inputs];
                kernel.launch(Shape::new([outputs, 1, 1], 128), arguments)?;
            } else {
                let shape = Shape::new([outputs.div_ceil(16), inputs.div_ceil(256), 1], 128);
                kernel.launch(shape, args![&self.dense, &matrix.weights, outputs, inputs])?;
            }
        }
        Ok(self.dense.at(0))
    }
}
