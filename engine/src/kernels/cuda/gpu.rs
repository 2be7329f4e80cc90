//! One GPU: its context, its stream, and the kernels that were loaded into it.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use std::{
    ffi::{CString, c_char, c_int},
    ptr,
    sync::Arc,
};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use super::{
    driver::{CudaError, check, driver},
    geometry::Chip,
};
use crate::device::DeviceInfo;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The oldest driver that the kernels' code is for.
const DRIVER: c_int = 13_000;
/// The oldest chip that they are for: the first with bf16 and asynchronous copies.
const CAPABILITY: (u32, u32) = (8, 0);

/// A GPU in use. Everything runs on one stream, in order.
#[derive(Debug)]
pub struct Gpu {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    info: DeviceInfo,
    chip: Chip,
}

// SAFETY: the driver's handles may be used from any thread that has made the context current, which every call does.
unsafe impl Send for Gpu {}
// SAFETY: the same; what the methods change is the driver's, which locks it.
unsafe impl Sync for Gpu {}

impl Gpu {
    /// What the driver says of the first GPU, which is left as it is.
    pub fn describe() -> Result<DeviceInfo, CudaError> {
        find().map(|(_, info)| info)
    }

    /// Takes the first GPU; an error says why there is none.
    pub fn open() -> Result<Arc<Self>, CudaError> {
        let (device, info) = find()?;
        let chip = chip(device)?;
        let (mut context, mut stream) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the device is one the driver gave; the context is made current for what follows.
        unsafe {
            driver!(cuDevicePrimaryCtxRetain(&mut context, device))?;
            driver!(cuCtxSetCurrent(context))?;
            driver!(cuStreamCreate(&mut stream, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))?;
        }
        let mut gpu = Self { device, context, stream, modules: Vec::new(), info, chip };
        for (name, image) in MODULES {
            gpu.load(name, image)?;
        }
        Ok(Arc::new(gpu))
    }

    /// What products are spread over.
    pub(super) fn chip(&self) -> Chip {
        self.chip
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Makes it the calling thread's.
    pub fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as `self`.
        unsafe { driver!(cuCtxSetCurrent(self.context)) }
    }

    /// Bytes that are free.
    pub fn free_memory(&self) -> Result<usize, CudaError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both are written.
        unsafe { driver!(cuMemGetInfo_v2(&mut free, &mut total))? };
        Ok(free)
    }

    /// Waits until all that was started is done.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the stream is ours.
        unsafe { driver!(cuStreamSynchronize(self.stream)) }
    }

    /// The stream on which everything runs.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// The context, for those who give handles back.
    pub(super) fn context(&self) -> sys::CUcontext {
        self.context
    }

    /// A kernel by its name, in the device's memory.
    pub(super) fn function(&self, name: &str) -> Result<sys::CUfunction, CudaError> {
        let absent = || CudaError::Absent(format!("this build has no kernel {name}"));
        let spelled = CString::new(name).map_err(|_| absent())?;
        self.bind()?;
        for &module in &self.modules {
            let mut function = ptr::null_mut();
            // SAFETY: the module is loaded, the name ends in a zero.
            match unsafe { sys::cuModuleGetFunction(&mut function, module, spelled.as_ptr()) } {
                sys::CUresult::CUDA_ERROR_NOT_FOUND => continue,
                code => check("cuModuleGetFunction", code)?,
            }
            // The driver would load it when it is first started, which may not be while a graph is recorded.
            // SAFETY: the function was just found.
            unsafe { driver!(cuFuncLoad(function))? };
            return Ok(function);
        }
        Err(absent())
    }

    fn load(&mut self, name: &str, image: &[u8]) -> Result<(), CudaError> {
        // The driver reads whole words.
        let mut aligned = vec![0_u64; image.len().div_ceil(8)];
        let mut module = ptr::null_mut();
        // SAFETY: the copy is as long as the image, a fat binary that the compiler made.
        unsafe {
            ptr::copy_nonoverlapping(image.as_ptr(), aligned.as_mut_ptr().cast(), image.len());
            driver!(cuModuleLoadData(&mut module, aligned.as_ptr().cast()))
        }
        .map_err(|error| CudaError::Absent(format!("the {name} kernels do not load: {error}")))?;
        self.modules.push(module);
        Ok(())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Of a device that failed nothing can be given back.
        // SAFETY: all handles are ours, and whoever used them held the `Arc` that is gone now.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            let _ = sys::cuStreamSynchronize(self.stream);
            for &module in &self.modules {
                let _ = sys::cuModuleUnload(module);
            }
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// The first device, if driver and chip are new enough.
fn find() -> Result<(sys::CUdevice, DeviceInfo), CudaError> {
    // SAFETY: looks whether the library is there.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::Absent("there is no CUDA driver on this machine (libcuda.so.1)".to_owned()));
    }
    let (mut driver_version, mut count, mut device) = (0, 0, 0);
    // SAFETY: each call writes what it is given the address of.
    unsafe {
        driver!(cuInit(0)).map_err(|error| CudaError::Absent(format!("the CUDA driver does not start: {error}")))?;
        driver!(cuDriverGetVersion(&mut driver_version))?;
        driver!(cuDeviceGetCount(&mut count))?;
        if count == 0 {
            return Err(CudaError::Absent("the CUDA driver finds no GPU".to_owned()));
        }
        driver!(cuDeviceGet(&mut device, 0))?;
    }
    let info = describe(device, driver_version)?;
    if driver_version < DRIVER {
        let (major, minor) = info.driver;
        return Err(CudaError::Absent(format!("the driver is for CUDA {major}.{minor}; these kernels need 13.0")));
    }
    if info.capability < CAPABILITY {
        let (major, minor) = info.capability;
        return Err(CudaError::Absent(format!(
            "{} has compute capability {major}.{minor}; these kernels need 8.0",
            info.name
        )));
    }
    Ok((device, info))
}

fn describe(device: sys::CUdevice, driver_version: c_int) -> Result<DeviceInfo, CudaError> {
    let attribute = |attribute| attribute_of(device, attribute);
    let (mut name, mut memory) = ([0 as c_char; 128], 0);
    // SAFETY: the driver writes at most as many bytes as it is told, a zero among them.
    unsafe {
        driver!(cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device))?;
        driver!(cuDeviceTotalMem_v2(&mut memory, device))?;
    }
    let name: Vec<u8> = name.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
    Ok(DeviceInfo {
        name: String::from_utf8_lossy(&name).into_owned(),
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes: memory as u64,
        clock_mhz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
        memory_clock_mhz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)? / 1000,
        driver: (driver_version as u32 / 1000, driver_version as u32 % 1000 / 10),
    })
}

fn chip(device: sys::CUdevice) -> Result<Chip, CudaError> {
    let attribute = |attribute| attribute_of(device, attribute).map(|value| value as usize);
    Ok(Chip {
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        block_shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
    })
}

fn attribute_of(device: sys::CUdevice, attribute: Attribute) -> Result<u32, CudaError> {
    let mut value: c_int = 0;
    // SAFETY: the value is written.
    unsafe { driver!(cuDeviceGetAttribute(&mut value, attribute, device)) }.map(|()| value.max(0) as u32)
}
