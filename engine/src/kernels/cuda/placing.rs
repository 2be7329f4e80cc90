//! Weights on their way from the mapped file to the device.
//!
//! Dense weights are copied as they are. GGUF blocks are laid out anew by the device itself; blocks that it has no
//! kernels for become dense, and so do quantised matrices of a shape that fills no tiles.
#![expect(unsafe_code, reason = "kernels are started")]

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use candle_core::quantized::GgmlDType;
use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{
    driver::CudaError,
    element::Element,
    format::{Format, repacking},
    gpu::Gpu,
    launch::{Kernel, Shape, args},
    matrix::{Matrix, Stack},
    memory::Buffer,
};
use crate::{
    error::EngineError,
    kernels::cpu::{Embedding, Threads, quantize_rows},
    loader::{Dtype, Quantization, Tensor},
};

/// Rows that are converted at once.
const ROWS: usize = 512;

/// Places a model's weights.
#[derive(Debug)]
pub(crate) struct Placing {
    gpu: Arc<Gpu>,
    element: Element,
    quantize: Option<Quantization>,
    /// Those that quantise to GGUF blocks, where that is asked for.
    threads: Option<Threads>,
    /// Weights as they came, before the device brings them into shape.
    staging: RefCell<Buffer<u8>>,
}

impl Placing {
    /// For rows of `element`; linear layers are quantised if asked to.
    pub(crate) fn new(gpu: &Arc<Gpu>, element: Element, quantize: Option<Quantization>) -> Result<Self, EngineError> {
        let threads = match quantize {
            Some(Quantization::Q8_0 | Quantization::Q4K) => Some(Threads::of_this_machine()?),
            Some(Quantization::Fp8) | None => None,
        };
        let staging = RefCell::new(Buffer::new(gpu, 0)?);
        Ok(Self { gpu: Arc::clone(gpu), element, quantize, threads, staging })
    }

    /// Numbers of single precision.
    pub(crate) fn single(&self, tensor: &Tensor) -> Result<Buffer<f32>, EngineError> {
        let mut numbers = Vec::new();
        Embedding::new(&tensor.as_row())?.forward(&[0], &mut numbers)?;
        Ok(Buffer::of(&self.gpu, &numbers)?)
    }

    /// A matrix of the rows' numbers, whatever it was.
    pub(crate) fn dense(&self, tensor: &Tensor) -> Result<Buffer<u8>, EngineError> {
        let weights = Buffer::new(&self.gpu, tensor.shape.iter().product::<usize>() * self.element.bytes())?;
        self.copy_dense(tensor, &weights, 0)?;
        Ok(weights)
    }

    /// Matrices that read the same rows, in order; neighbours of one format become one matrix.
    pub(crate) fn stack(&self, tensors: &[&Tensor]) -> Result<Stack, EngineError> {
        let mut parts = Vec::new();
        let mut rest = tensors;
        while let [first, ..] = rest {
            let format = self.format(first)?;
            let mut alike = 1;
            while alike < rest.len() && self.format(rest[alike])? == format {
                alike += 1;
            }
            parts.push(self.matrix(&rest[..alike], format)?);
            rest = &rest[alike..];
        }
        Ok(Stack { parts })
    }

    /// What a tensor becomes.
    fn format(&self, tensor: &Tensor) -> Result<Format, EngineError> {
        let (outputs, inputs) = sizes(tensor)?;
        let dense = Format::Dense(self.element);
        let blocks = match (tensor.dtype, self.quantize) {
            (Dtype::Quantized(blocks), _) => Some(blocks),
            (_, Some(Quantization::Q8_0)) => Some(GgmlDType::Q8_0),
            (_, Some(Quantization::Q4K)) if inputs.is_multiple_of(GgmlDType::Q4K.block_size()) => Some(GgmlDType::Q4K),
            (_, Some(Quantization::Q4K)) => Some(GgmlDType::Q8_0),
            (_, Some(Quantization::Fp8)) => {
                let fp8 = self.element != Element::F32 && Format::Fp8.is_quick(inputs);
                return Ok(if fp8 { Format::Fp8 } else { dense });
            }
            (_, None) => None,
        };
        // The kernels for blocks are made for rows of half precision.
        let tiled = blocks.filter(|_| self.element == Element::F16);
        Ok(tiled.and_then(|blocks| Format::of_blocks(blocks, outputs, inputs)).unwrap_or(dense))
    }

    fn matrix(&self, tensors: &[&Tensor], format: Format) -> Result<Matrix, EngineError> {
        let mut outputs = 0;
        let mut inputs = 0;
        for tensor in tensors {
            let (rows, columns) = sizes(tensor)?;
            (outputs, inputs) = (outputs + rows, columns);
        }
        let weights = Buffer::new(&self.gpu, format.bytes(outputs, inputs))?;
        let scales = (format == Format::Fp8).then(|| Buffer::new(&self.gpu, outputs)).transpose()?;
        let matrix = Matrix { format, outputs, inputs, weights, scales };
        let mut first = 0;
        for tensor in tensors {
            match format {
                Format::Dense(element) => self.copy_dense(tensor, &matrix.weights, first * inputs * element.bytes())?,
                Format::Fp8 => self.quantize_fp8(tensor, &matrix, first)?,
                Format::Q8_0 | Format::Q4K | Format::Q5K | Format::Q6K => self.repack(tensor, &matrix, first)?,
            }
            first += sizes(tensor)?.0;
            tensor.release();
        }
        Ok(matrix)
    }

    /// Copies a matrix to byte `at`, as the rows' numbers.
    fn copy_dense(&self, tensor: &Tensor, to: &Buffer<u8>, at: usize) -> Result<(), EngineError> {
        if Element::of(tensor.dtype) == Some(self.element) {
            return Ok(to.write(at, tensor.bytes())?);
        }
        let (rows, width) = sizes(tensor)?;
        let embedding = Embedding::new(tensor)?;
        let mut wide = Vec::new();
        for first in (0..rows).step_by(ROWS) {
            let ids: Vec<u32> = (first..rows.min(first + ROWS)).map(|row| row as u32).collect();
            embedding.forward(&ids, &mut wide)?;
            to.write(at + first * width * self.element.bytes(), &narrow(&wide, self.element))?;
        }
        Ok(())
    }

    /// Copies GGUF blocks, made now or when the file was written, and has the device lay them out in tiles.
    fn repack(&self, tensor: &Tensor, matrix: &Matrix, first: usize) -> Result<(), EngineError> {
        let (outputs, inputs) = sizes(tensor)?;
        let (dtype, blocks) = match (tensor.dtype, &self.threads) {
            (Dtype::Quantized(dtype), _) => (dtype, Cow::Borrowed(tensor.bytes())),
            (_, Some(threads)) => {
                let dtype = if matrix.format == Format::Q4K { GgmlDType::Q4K } else { GgmlDType::Q8_0 };
                (dtype, Cow::Owned(quantize_rows(tensor, dtype, threads)?))
            }
            (_, None) => return Err(EngineError::Compute(format!("{}: nothing quantises it", tensor.name))),
        };
        let to = matrix.weights.at(matrix.format.bytes(first, inputs));
        let kernel = repacking(dtype).ok_or_else(|| EngineError::Compute(format!("no kernel for {dtype:?}")))?;
        let kernel = Kernel::new(&self.gpu, kernel)?;
        self.staged(&blocks, |staged| {
            let shape = Shape::new([outputs / 16, inputs / 64, 1], 128);
            // SAFETY: the matrix has room for these outputs, the blocks are as many as the shape needs.
            unsafe { kernel.launch(shape, args![to, staged, outputs, inputs]) }
        })
    }

    /// Copies numbers, and has the device quantise them.
    fn quantize_fp8(&self, tensor: &Tensor, matrix: &Matrix, first: usize) -> Result<(), EngineError> {
        let (outputs, inputs) = sizes(tensor)?;
        let dense = self.dense(tensor)?;
        let (to, scales) = (matrix.weights.at(first * inputs), matrix.scales() + 4 * first as u64);
        let kernel = Kernel::new(&self.gpu, &format!("quantize_fp8_{}", self.element.suffix()))?;
        // SAFETY: the matrix has room for these outputs and their scales.
        unsafe { kernel.launch(Shape::new([outputs, 1, 1], 256), args![to, scales, &dense, inputs])? };
        Ok(self.gpu.synchronize()?)
    }

    /// Runs `work` on a copy of `bytes` on the device, whose memory is kept for the next.
    fn staged(&self, bytes: &[u8], work: impl FnOnce(&Buffer<u8>) -> Result<(), CudaError>) -> Result<(), EngineError> {
        let mut staging = self.staging.borrow_mut();
        staging.grow(bytes.len())?;
        staging.write(0, bytes)?;
        work(&staging)?;
        Ok(self.gpu.synchronize()?)
    }
}

fn sizes(tensor: &Tensor) -> Result<(usize, usize), EngineError> {
    match *tensor.shape.as_slice() {
        [outputs, inputs] => Ok((outputs, inputs)),
        _ => Err(EngineError::Compute(format!("{}: not a matrix", tensor.name))),
    }
}

/// Numbers as the device's rows have them; halves stay finite.
fn narrow(numbers: &[f32], element: Element) -> Vec<u8> {
    match element {
        Element::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Element::Bf16 => numbers.iter().flat_map(|&number| bf16::from_f32(number).to_le_bytes()).collect(),
        Element::F16 => {
            let mut halves = vec![f16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            let (low, high) = (f16::MIN, f16::MAX);
            halves.iter().flat_map(|half| half.clamp(low, high).to_le_bytes()).collect()
        }
    }
}
