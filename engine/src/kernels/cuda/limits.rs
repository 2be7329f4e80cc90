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

/// Bytes read, each larger until one takes long enough: in the end, many times what the card's caches hold.
const READS: [usize; 3] = [1 << 20, 64 << 20, 4 << 30];
const PAGE: usize = 4096;
/// Blocks of readers for each multiprocessor.
const READERS: usize = 16;
/// Widths of square matrices, each larger until one takes long enough: in the end, every matrix unit is busy.
const WIDTHS: [usize; 3] = [128, 1024, 8192];
/// What takes as long is more than caches and queues can hide. A card that is emulated is done at once.
const LONG_ENOUGH: Duration = Duration::from_millis(1);
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

/// Operations per second of products of `element`, or of 8-bit floating-point numbers; `None` where the library has
/// none.
pub fn measure_compute(gpu: &Arc<Gpu>, element: Element, fp8: bool) -> Result<Option<f64>, CudaError> {
    let blas = match Blas::new(gpu) {
        Ok(blas) => blas,
        Err(CudaError::Absent(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut rate = None;
    for width in WIDTHS {
        let Some(time) = product(gpu, &blas, width, (!fp8).then_some(element))? else { break };
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
    let sizes = Sizes { outputs: width, inputs: width, stride: width, rows: width };
    let Some(product) = Product::new(blas, sizes, operands)? else { return Ok(None) };
    // Not zeros: a card multiplies these faster.
    let numbers = noise(width * width, element);
    debug_assert_eq!(numbers.len(), width * width * element.map_or(1, Element::bytes));
    let (weights, x) = (Buffer::of(gpu, &numbers)?, Buffer::of(gpu, &numbers)?);
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
