//! What the card can do at most, measured on it: bytes read per second, and operations of its matrix units.
#![expect(unsafe_code, reason = "kernels are started")]

use std::{sync::Arc, time::Duration};

use super::{
    blas::{Blas, Operands, Product, Sizes},
    driver::CudaError,
    element::Element,
    gpu::Gpu,
    graph::Event,
    launch::{Kernel, Shape, args},
    memory::Buffer,
};
use crate::synth::Random;

/// Bytes read, each larger until one takes long enough: in the end, many times what the card's caches hold.
const READS: [usize; 3] = [1 << 20, 64 << 20, 4 << 30];
const PAGE: usize = 4096;
/// Blocks of readers for each multiprocessor.
const READERS: usize = 16;
/// Widths of square matrices, each larger until one takes long enough: in the end, every matrix unit is busy.
const WIDTHS: [usize; 3] = [128, 1024, 8192];
/// What takes as long is more than caches and queues can hide. A card that is emulated is done at once.
const LONG_ENOUGH: Duration = Duration::from_millis(1);
/// Bytes of random numbers after which the same ones come again.
const PATTERN: usize = 1 << 20;
/// Measured this often; the best counts.
const ROUNDS: usize = 5;

/// Bytes per second that the card reads from its memory.
pub fn measure_bandwidth(gpu: &Arc<Gpu>) -> Result<f64, CudaError> {
    let most = gpu.free_memory()? / 2;
    let kernel = Kernel::new(gpu, "read_all")?;
    let blocks = READERS * gpu.info().multiprocessors as usize;
    let out: Buffer<f32> = Buffer::new(gpu, blocks)?;
    let mut rate = 0.0;
    for bytes in READS {
        let bytes = bytes.min(most) / PAGE * PAGE;
        let data: Buffer<u8> = Buffer::new(gpu, bytes)?;
        let time = best(gpu, || {
            let arguments = args![&out, &data, bytes / PAGE];
            // SAFETY: so many pages are there, and a number for each block.
            unsafe { kernel.launch(Shape::new([blocks, 1, 1], 256), arguments) }
        })?;
        rate = bytes as f64 / time.as_secs_f64();
        if time >= LONG_ENOUGH {
            break;
        }
    }
    Ok(rate)
}

/// What a card's matrix units can do.
#[derive(Debug, Clone, Copy)]
pub struct MatrixLimit {
    /// Operations per second.
    pub operations_per_second: f64,
    /// On which numbers.
    pub operands: &'static str,
}

/// What the matrix units do with products of 8-bit floating-point numbers, if these are asked for and the library has
/// them for this chip, or else of `element`; `None` where it has neither.
pub fn measure_compute(gpu: &Arc<Gpu>, element: Element, fp8: bool) -> Result<Option<MatrixLimit>, CudaError> {
    let blas = match Blas::new(gpu) {
        Ok(blas) => blas,
        Err(CudaError::Absent(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let kinds = [fp8.then_some(("fp8", None)), Some((element.suffix(), Some(element)))];
    for (operands, element) in kinds.into_iter().flatten() {
        if let Some(operations_per_second) = operations_per_second(gpu, &blas, element)? {
            return Ok(Some(MatrixLimit { operations_per_second, operands }));
        }
    }
    Ok(None)
}

fn operations_per_second(gpu: &Arc<Gpu>, blas: &Arc<Blas>, element: Option<Element>) -> Result<Option<f64>, CudaError> {
    let mut rate = None;
    for width in WIDTHS {
        let Some(time) = product(gpu, blas, width, element)? else { break };
        rate = Some(2.0 * (width as f64).powi(3) / time.as_secs_f64());
        if time >= LONG_ENOUGH {
            break;
        }
    }
    Ok(rate)
}

/// The time of a product of square matrices of `element`, or of 8-bit floating-point numbers.
fn product(
    gpu: &Arc<Gpu>,
    blas: &Arc<Blas>,
    width: usize,
    element: Option<Element>,
) -> Result<Option<Duration>, CudaError> {
    let (operands, out_bytes) = match element {
        Some(element) => (Operands::Same(element), element.bytes()),
        None => (Operands::Fp8, size_of::<f32>()),
    };
    let sizes = Sizes { outputs: width, inputs: width, stride: width };
    let Some(product) = Product::new(blas, sizes, operands, width)? else { return Ok(None) };
    // Not zeros: a card multiplies these faster.
    let (weights, x) = (noise(gpu, width * width, element)?, noise(gpu, width * width, element)?);
    let out: Buffer<u8> = Buffer::new(gpu, width * width * out_bytes)?;
    // SAFETY: all three are as large as the sizes say.
    best(gpu, || unsafe { product.launch(weights.at(0), x.at(0), width, out.at(0)) }).map(Some)
}

/// The shortest time of `work` on the device, after one that does not count.
fn best(gpu: &Arc<Gpu>, work: impl Fn() -> Result<(), CudaError>) -> Result<Duration, CudaError> {
    let (begun, done) = (Event::new(gpu)?, Event::new(gpu)?);
    gpu.bind()?;
    work()?;
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        begun.record()?;
        work()?;
        done.record()?;
        done.wait()?;
        best = best.min(done.since(&begun)?);
    }
    Ok(best.max(Duration::from_nanos(1)))
}

/// Numbers around 1 of either sign with all digits in use, the same ones again after some; `None` are e4m3 bytes.
fn noise(gpu: &Arc<Gpu>, count: usize, element: Option<Element>) -> Result<Buffer<u8>, CudaError> {
    // Sign and digits of a number, little end first, and its exponent: no pattern is infinite or no number.
    let (kept, exponent): (&[u8], &[u8]) = match element {
        None => (&[0x9f], &[0x20]),
        Some(Element::Bf16) => (&[0x7f, 0x80], &[0x80, 0x3f]),
        Some(Element::F16) => (&[0xff, 0x83], &[0x00, 0x3c]),
        Some(Element::F32) => (&[0xff, 0xff, 0x7f, 0x80], &[0x00, 0x00, 0x80, 0x3f]),
    };
    let numbers = Buffer::new(gpu, count * kept.len())?;
    let mut pattern = vec![0; PATTERN.min(numbers.len())];
    Random::new(0, 0).bytes(&mut pattern);
    for number in pattern.chunks_exact_mut(kept.len()) {
        number.iter_mut().zip(kept.iter().zip(exponent)).for_each(|(byte, (kept, set))| *byte = *byte & kept | set);
    }
    for first in (0..numbers.len()).step_by(pattern.len()) {
        numbers.write(first, &pattern[..pattern.len().min(numbers.len() - first)])?;
    }
    Ok(numbers)
}
