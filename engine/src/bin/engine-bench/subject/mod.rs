//! What is measured: a model on its device, and what that device can do at most.
//!
//! - `cpu`, `cuda`: the only files here that know how the engine's model is called;
//! - `steps`: batches as the scheduler would lay them out, for both.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod steps;

use engine::{Device, model::ModelSizes};

use crate::{args::Args, rows::Row};

/// A model with a cache that the largest row fits.
pub(crate) trait Subject {
    /// What decides about the work of a row.
    fn sizes(&self) -> ModelSizes;

    /// What the device can do at most, measured now.
    fn limits(&self) -> anyhow::Result<Limits>;

    /// Times `count` passes of `row`, after some that do not count; a decode row is always the same step, at the end
    /// of its context.
    fn passes(&mut self, row: Row, count: u32) -> anyhow::Result<Passes>;
}

/// What a device can do at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes read per second.
    pub(crate) bandwidth: f64,
    /// Operations per second, if that could be measured.
    pub(crate) compute: Option<f64>,
    /// On which numbers.
    pub(crate) operands: &'static str,
}

/// The times of a row's passes.
#[derive(Debug)]
pub(crate) struct Passes {
    /// Of each, in seconds; the device's own where it has a clock.
    pub(crate) seconds: Vec<f64>,
    /// Where steps are launched ahead: the share of the time in which the device waits for the host.
    pub(crate) host_overhead: Option<f64>,
}

/// Places the model's weights on the device, and fills its cache.
pub(crate) fn open(args: &Args, rows: &[Row], device: &Device) -> anyhow::Result<Box<dyn Subject>> {
    device.check(args.quantize())?;
    let step_tokens = args.step_tokens(device);
    match device {
        Device::Cpu => Ok(Box::new(cpu::CpuSubject::open(args, rows, step_tokens)?)),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => Ok(Box::new(cuda::CudaSubject::open(args, rows, step_tokens, gpu)?)),
    }
}
