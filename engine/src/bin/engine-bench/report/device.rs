//! What a GPU is, by its driver's account.

use std::fmt;

use engine::DeviceInfo;
use serde::Serialize;

/// A GPU.
#[derive(Debug, Serialize)]
pub(super) struct GpuFacts {
    name: String,
    /// The chip's compute capability, as in 9.0.
    capability: String,
    /// The version of CUDA that the driver is for.
    driver: String,
    multiprocessors: u32,
    memory_bytes: u64,
    /// The highest clocks.
    clock_mhz: u32,
    memory_clock_mhz: u32,
}

impl GpuFacts {
    pub(super) fn new(info: &DeviceInfo) -> Self {
        let dotted = |(major, minor)| format!("{major}.{minor}");
        Self {
            name: info.name.clone(),
            capability: dotted(info.capability),
            driver: dotted(info.driver),
            multiprocessors: info.multiprocessors,
            memory_bytes: info.memory_bytes,
            clock_mhz: info.clock_mhz,
            memory_clock_mhz: info.memory_clock_mhz,
        }
    }
}

impl fmt::Display for GpuFacts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, capability, driver, multiprocessors, memory_bytes, clock_mhz, memory_clock_mhz } = self;
        write!(
            out,
            "{name}, compute capability {capability}, {multiprocessors} multiprocessors at up to {clock_mhz} MHz, \
             {} MiB at up to {memory_clock_mhz} MHz, driver for CUDA {driver}",
            memory_bytes >> 20
        )
    }
}
