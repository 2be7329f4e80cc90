//! Kernels, started with their arguments.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use std::{ffi::c_void, ptr, sync::Arc};

use cudarc::driver::sys;

use super::{
    driver::{CudaError, driver},
    gpu::Gpu,
    memory::{Buffer, Plain},
};

/// The most arguments that a kernel of ours has.
const MAX_ARGUMENTS: usize = 24;
/// Dynamic shared memory that needs no permission.
const PLAIN_SHARED: u32 = 48 << 10;

/// The first chip whose kernels may begin before those before them have ended; all of ours wait by themselves for what
/// they need of these (`begin` in `common.cuh`).
const OVERLAP_CAPABILITY: (u32, u32) = (9, 0);

/// The attribute that lets a kernel begin early.
fn overlapping() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    }
}

/// A kernel that can be started.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    gpu: Arc<Gpu>,
    function: sys::CUfunction,
}

// SAFETY: the handle is the driver's, which locks it.
unsafe impl Send for Kernel {}
// SAFETY: the same.
unsafe impl Sync for Kernel {}

/// How many threads there are, and what they share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Blocks.
    pub(super) grid: [usize; 3],
    /// Threads of a block.
    pub(super) block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub(super) shared: u32,
}

impl Shape {
    /// Blocks without dynamic shared memory.
    pub(super) fn new(grid: [usize; 3], block: u32) -> Self {
        Self { grid, block, shared: 0 }
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg {
    /// An address in the device's memory, or 0.
    Address(u64),
    /// A whole number.
    Int(i32),
    /// A number.
    Float(f32),
}

impl From<u64> for Arg {
    fn from(address: u64) -> Self {
        Self::Address(address)
    }
}

impl<T: Plain> From<&Buffer<T>> for Arg {
    fn from(buffer: &Buffer<T>) -> Self {
        Self::Address(buffer.at(0))
    }
}

impl From<usize> for Arg {
    /// Sizes of a step: far below what an int takes.
    fn from(size: usize) -> Self {
        debug_assert!(i32::try_from(size).is_ok(), "{size}");
        Self::Int(size as i32)
    }
}

impl From<f32> for Arg {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Arg {
    fn from(is: bool) -> Self {
        Self::Int(i32::from(is))
    }
}

/// Arguments in the order in which a kernel declares them.
macro_rules! args {
    ($($argument:expr),* $(,)?) => { &[$($crate::kernels::cuda::launch::Arg::from($argument)),*] };
}
pub(super) use args;

impl Kernel {
    /// The kernel of that name.
    pub(super) fn new(gpu: &Arc<Gpu>, name: &str) -> Result<Self, CudaError> {
        Ok(Self { gpu: Arc::clone(gpu), function: gpu.function(name)? })
    }

    /// The kernel of that name, whose blocks may share up to `bytes`.
    pub(super) fn with_shared(gpu: &Arc<Gpu>, name: &str, bytes: u32) -> Result<Self, CudaError> {
        let kernel = Self::new(gpu, name)?;
        if bytes > PLAIN_SHARED {
            gpu.bind()?;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            unsafe { driver!(cuFuncSetAttribute(kernel.function, attribute, bytes as i32))? };
        }
        Ok(kernel)
    }

    /// Starts it; nothing where the grid is empty. The calling thread has the GPU bound.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, and what they point to is as long as it reads and writes.
    pub(super) unsafe fn launch(&self, shape: Shape, arguments: &[Arg]) -> Result<(), CudaError> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        debug_assert!(arguments.len() <= MAX_ARGUMENTS);
        let (mut cells, mut pointers) = ([0_u64; MAX_ARGUMENTS], [ptr::null_mut::<c_void>(); MAX_ARGUMENTS]);
        for ((cell, pointer), argument) in cells.iter_mut().zip(&mut pointers).zip(arguments) {
            // The low bytes of a cell are where a 32-bit argument is read from.
            *cell = match *argument {
                Arg::Address(address) => address,
                Arg::Int(number) => u64::from(number as u32),
                Arg::Float(number) => u64::from(number.to_bits()),
            };
            *pointer = ptr::from_mut(cell).cast();
        }
        let [x, y, z] = shape.grid.map(|blocks| blocks as u32);
        let mut overlap = overlapping();
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: shape.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared,
            hStream: self.gpu.stream(),
            attrs: &mut overlap,
            numAttrs: u32::from(self.gpu.info().capability >= OVERLAP_CAPABILITY),
        };
        // SAFETY: by this function's contract; the driver copies what it is given before it returns.
        unsafe { driver!(cuLaunchKernelEx(&config, self.function, pointers.as_mut_ptr(), ptr::null_mut())) }
    }
}
