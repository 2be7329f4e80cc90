//! Which device computes.

use std::fmt;
#[cfg(feature = "cuda")]
use std::sync::Arc;

#[cfg(feature = "cuda")]
use crate::kernels::cuda::Gpu;
use crate::{error::LoadError, loader::Quantization};

/// The device asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU; an error where there is none.
    Cuda,
}

/// The device there is.
#[derive(Debug, Clone)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<Gpu>),
}

/// What a GPU's driver says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The product's name.
    pub name: String,
    /// The chip's compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The multiprocessors' highest clock, in MHz.
    pub clock_mhz: u32,
    /// The memory's highest clock, in MHz.
    pub memory_clock_mhz: u32,
    /// The version of CUDA that the driver is for, as in 13.0.
    pub driver: (u32, u32),
}

/// A device's memory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Bytes in use, by whomever.
    pub used: u64,
    /// Bytes there are.
    pub total: u64,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        write!(formatter, "{} ({} MiB, compute capability {major}.{minor})", self.name, self.memory_bytes >> 20)
    }
}

impl DeviceChoice {
    /// The device, or why what was asked for cannot be had. Where it is left open and there is no GPU, a line of the
    /// log says why the CPU computes.
    pub fn open(self) -> Result<Device, LoadError> {
        if self == Self::Cpu {
            return Ok(Device::Cpu);
        }
        match (gpu(), self) {
            (Ok(device), _) => Ok(device),
            (Err(reason), Self::Cuda) => {
                Err(LoadError::Device(format!("device cuda: {reason}; use --device cpu or auto")))
            }
            (Err(reason), _) => {
                tracing::info!(%reason, "the CPU computes");
                Ok(Device::Cpu)
            }
        }
    }

    /// The GPU that it comes to, as far as its driver tells without being asked to compute.
    pub fn info(self) -> Option<DeviceInfo> {
        match self {
            Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Auto | Self::Cuda => Gpu::describe().ok(),
            #[cfg(not(feature = "cuda"))]
            Self::Auto | Self::Cuda => None,
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Result<Device, String> {
    let gpu = Gpu::open().map_err(|error| error.to_string())?;
    tracing::info!(gpu = %gpu.info(), "the GPU computes");
    Ok(Device::Cuda(gpu))
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Result<Device, String> {
    Err("this binary was built without CUDA kernels (feature cuda)".to_owned())
}

impl Device {
    /// `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => "cuda",
        }
    }

    /// Whether it computes with weights of that kind; an error says what else to do.
    pub fn check(&self, quantize: Option<Quantization>) -> Result<(), LoadError> {
        match (self, quantize) {
            (Self::Cpu, Some(Quantization::Fp8)) => {
                Err(LoadError::Device("fp8 weights need a GPU: quantise to q8_0 on the CPU".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// What is known of it, if it is a GPU.
    pub fn info(&self) -> Option<&DeviceInfo> {
        match self {
            Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => Some(gpu.info()),
        }
    }

    /// Its memory now, if it has some of its own and says so.
    pub fn memory(&self) -> Option<DeviceMemory> {
        match self {
            Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => {
                let (free, total) = (gpu.free_memory().ok()? as u64, gpu.info().memory_bytes);
                Some(DeviceMemory { used: total.saturating_sub(free), total })
            }
        }
    }
}
