//! Memory of the device, and memory of the host that the device copies from and to by itself.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    sync::Arc,
};

use cudarc::driver::sys::{self, CUresult};

use super::{
    driver::{CudaError, check, driver},
    gpu::Gpu,
};

/// Numbers of which any bits are one.
pub(crate) trait Plain: Copy + Send + Sync + 'static {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for f32 {}

/// An array in the device's memory.
#[derive(Debug)]
pub(crate) struct Buffer<T: Plain> {
    gpu: Arc<Gpu>,
    address: u64,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Self, CudaError> {
        gpu.bind()?;
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| CudaError::no_room(usize::MAX))?.max(16);
        let mut address = 0;
        // SAFETY: the address is written.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(CudaError::no_room(bytes)),
            code => check("cuMemAlloc", code)?,
        }
        let buffer = Self { gpu: Arc::clone(gpu), address, len, numbers: PhantomData };
        // SAFETY: the memory is ours and as long.
        unsafe { driver!(cuMemsetD8Async(address, 0, bytes, gpu.stream()))? };
        Ok(buffer)
    }

    /// A copy of `from`.
    pub(crate) fn of(gpu: &Arc<Gpu>, from: &[T]) -> Result<Self, CudaError> {
        let buffer = Self::new(gpu, from.len())?;
        buffer.write(0, from)?;
        Ok(buffer)
    }

    /// Makes it at least so long; what was in a shorter one is lost.
    pub(crate) fn grow(&mut self, len: usize) -> Result<(), CudaError> {
        if self.len < len {
            *self = Self::new(&self.gpu, len)?;
        }
        Ok(())
    }

    /// Numbers in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Where it lies, from number `first` on.
    pub(crate) fn at(&self, first: usize) -> u64 {
        debug_assert!(first <= self.len, "{first} of {}", self.len);
        self.address + (first * size_of::<T>()) as u64
    }

    /// Copies `from` to number `first` on; returns once `from` was read. In order with what was started before.
    pub(crate) fn write(&self, first: usize, from: &[T]) -> Result<(), CudaError> {
        assert!(first + from.len() <= self.len, "{} numbers at {first} of {}", from.len(), self.len);
        if from.is_empty() {
            return Ok(());
        }
        self.gpu.bind()?;
        // SAFETY: the range is within the buffer; the wait keeps `from` in place until it was read.
        unsafe {
            let bytes = size_of_val(from);
            driver!(cuMemcpyHtoDAsync_v2(self.at(first), from.as_ptr().cast(), bytes, self.gpu.stream()))?;
            driver!(cuStreamSynchronize(self.gpu.stream()))
        }
    }

    /// Makes `len` numbers from `first` on zero. In order with what was started before.
    pub(crate) fn clear(&self, first: usize, len: usize) -> Result<(), CudaError> {
        assert!(first + len <= self.len, "{len} numbers at {first} of {}", self.len);
        self.gpu.bind()?;
        // SAFETY: the range is within the buffer.
        unsafe { driver!(cuMemsetD8Async(self.at(first), 0, len * size_of::<T>(), self.gpu.stream())) }
    }

    /// Copies all of `from` to its own beginning. In order with what was started before.
    pub(crate) fn copy(&self, from: &Self) -> Result<(), CudaError> {
        assert!(from.len <= self.len, "{} numbers to {}", from.len, self.len);
        self.gpu.bind()?;
        // SAFETY: both are as long.
        unsafe { driver!(cuMemcpyDtoDAsync_v2(self.at(0), from.at(0), from.bytes(), self.gpu.stream())) }
    }

    /// Its numbers, once all that was started is done.
    #[cfg(test)]
    pub(crate) fn read(&self) -> Result<Vec<T>, CudaError> {
        self.read_range(0, self.len)
    }

    /// `len` of its numbers from `first` on, once all that was started is done.
    pub(crate) fn read_range(&self, first: usize, len: usize) -> Result<Vec<T>, CudaError> {
        assert!(first + len <= self.len, "{len} numbers at {first} of {}", self.len);
        let mut out: Vec<T> = Vec::with_capacity(len);
        if len == 0 {
            return Ok(out);
        }
        self.gpu.bind()?;
        // SAFETY: `out` has room for all of them, and any bits are a number.
        unsafe {
            let bytes = len * size_of::<T>();
            driver!(cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), self.at(first), bytes, self.gpu.stream()))?;
            driver!(cuStreamSynchronize(self.gpu.stream()))?;
            out.set_len(len);
        }
        Ok(out)
    }

    /// Starts copying the first `len` numbers of `from`, which its owner leaves as they are until the copy is done.
    /// The calling thread has the GPU bound.
    pub(crate) fn start_write(&self, from: &Pinned<T>, len: usize) -> Result<(), CudaError> {
        assert!(len <= self.len && len <= from.len, "{len} numbers from {} to {}", from.len, self.len);
        let bytes = len * size_of::<T>();
        // SAFETY: both are as long, and pinned memory is given back only once the stream is idle; who writes it earlier
        // only has other numbers arrive.
        unsafe { driver!(cuMemcpyHtoDAsync_v2(self.at(0), from.pointer.as_ptr().cast(), bytes, self.gpu.stream())) }
    }

    /// Starts copying the first `len` numbers into `to`, which its owner reads only once the copy is done. The calling
    /// thread has the GPU bound.
    pub(crate) fn start_read(&self, to: &mut Pinned<T>, len: usize) -> Result<(), CudaError> {
        assert!(len <= self.len && len <= to.len, "{len} numbers from {} to {}", self.len, to.len);
        let bytes = len * size_of::<T>();
        // SAFETY: both are as long, and pinned memory is given back only once the stream is idle; who reads it earlier
        // only sees other numbers.
        unsafe { driver!(cuMemcpyDtoHAsync_v2(to.pointer.as_ptr().cast(), self.at(0), bytes, self.gpu.stream())) }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        // It waits for what is under way; of a device that failed nothing can be given back.
        // SAFETY: the memory is ours, and nobody uses it any more.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.gpu.context());
            let _ = sys::cuMemFree_v2(self.address);
        }
    }
}

/// Memory of the host that stays where it is, for copies that the host does not wait for.
#[derive(Debug)]
pub(crate) struct Pinned<T: Plain> {
    gpu: Arc<Gpu>,
    pointer: NonNull<T>,
    len: usize,
}

// SAFETY: it owns what it points to.
unsafe impl<T: Plain> Send for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// `len` zeros.
    pub(crate) fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Self, CudaError> {
        gpu.bind()?;
        let (mut pointer, bytes) = (ptr::null_mut(), (len * size_of::<T>()).max(16));
        // SAFETY: the pointer is written, and what it points to is as long.
        let pointer = unsafe {
            driver!(cuMemHostAlloc(&mut pointer, bytes, 0))?;
            ptr::write_bytes(pointer.cast::<u8>(), 0, bytes);
            NonNull::new(pointer.cast()).ok_or_else(|| CudaError::no_room(bytes))?
        };
        Ok(Self { gpu: Arc::clone(gpu), pointer, len })
    }
}

impl<T: Plain> Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: that many numbers are there, and all were written.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: that many numbers are there, all were written, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: the memory is ours; the device is done with it before it is given back.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.gpu.context());
            let _ = sys::cuStreamSynchronize(self.gpu.stream());
            let _ = sys::cuMemFreeHost(self.pointer.as_ptr().cast());
        }
    }
}
