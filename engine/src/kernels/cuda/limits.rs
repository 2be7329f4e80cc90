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

/// Bytes read at most: many times what the card's caches hold.
const READ: usize = 4 << 30;
const PAGE: usize = 4096;
/// Blocks of readers for each multiprocessor.
const READERS: usize = 16;
/// The width of square matrices that keep every matrix unit busy.
const WIDTH: usize = 8192;
/// Measured this often; the best counts.
const ROUNDS: usize = 5;

/// Bytes per second that the card reads from its memory.
pub fn measure_bandwidth(gpu: &Arc<Gpu>) -> Result<f64, CudaError> {
    let bytes = READ.min(gpu.free_memory()? / 2) / PAGE * PAGE;
    let kernel = Kernel::new(gpu, "read_all")?;
    let data: Buffer<u8> = Buffer::new(gpu, bytes)?;
    let blocks = READERS * gpu.info().multiprocessors as usize;
    let out: Buffer<f32> = Buffer::new(gpu, blocks)?;
    let time = best(gpu, || {
        let arguments = args![&out, &data, bytes / PAGE];
        // SAFETY: so many pages are there, and a number for each block.
        unsafe { kernel.launch(Shape::new([blocks, 1, 1], 256), arguments) }
    })?;
    Ok(bytes as f64 / time.as_secs_f64())
}

/// Operations per second of products of `element`, or of 8-bit floating-point numbers; `None` where the library has
/// none, or no room for them is left.
pub fn measure_compute(gpu: &Arc<Gpu>, element: Element, fp8: bool) -> Result<Option<f64>, CudaError> {
    let blas = match Blas::new(gpu) {
        Ok(blas) => blas,
        Err(CudaError::Absent(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let operands = if fp8 { Operands::Fp8 } else { Operands::Same(element) };
    let (in_bytes, out_bytes) = if fp8 { (1, 4) } else { (element.bytes(), element.bytes()) };
    // Whether emulated or small, a card gets what it can do in a moment.
    let width = if gpu.info().multiprocessors < 16 { WIDTH / 64 } else { WIDTH };
    let sizes = Sizes { outputs: width, inputs: width, stride: width, rows: width };
    let Some(product) = Product::new(&blas, sizes, operands)? else { return Ok(None) };
    // Not zeros: a card multiplies these faster.
    let numbers = noise(width * width, if fp8 { None } else { Some(element) });
    let (weights, x) = (Buffer::of(gpu, &numbers)?, Buffer::of(gpu, &numbers)?);
    debug_assert_eq!(numbers.len(), width * width * in_bytes);
    let out: Buffer<u8> = Buffer::new(gpu, width * width * out_bytes)?;
    // SAFETY: all three are as large as the sizes say.
    let time = best(gpu, || unsafe { product.launch(weights.at(0), x.at(0), width, out.at(0)) })?;
    Ok(Some(2.0 * (width as f64).powi(3) / time.as_secs_f64()))
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

/// Numbers around 1 of either sign with all digits in use; `None` are e4m3 bytes.
fn noise(count: usize, element: Option<Element>) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    match element {
        // Exponents from 2^-2 to 2^1, so that no bit pattern is infinite or not a number.
        None => (0..count).map(|_| (next() as u8 & 0x9f) | 0x20).collect(),
        Some(Element::Bf16) => (0..count).flat_map(|_| ((next() as u16 & 0x807f) | 0x3f80).to_le_bytes()).collect(),
        Some(Element::F16) => (0..count).flat_map(|_| ((next() as u16 & 0x83ff) | 0x3c00).to_le_bytes()).collect(),
        Some(Element::F32) => {
            (0..count).flat_map(|_| ((next() as u32 & 0x807f_ffff) | 0x3f80_0000).to_le_bytes()).collect()
        }
    }
}
