//! Work that was recorded once and is started as one thing, and instants on the device's own clock.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use std::{ptr, sync::Arc, time::Duration};

use cudarc::driver::sys;

use super::{
    driver::{CudaError, driver},
    gpu::Gpu,
};

/// Recorded work. What it reads and writes must live as long as it is started.
#[derive(Debug)]
pub(crate) struct Graph {
    gpu: Arc<Gpu>,
    executable: sys::CUgraphExec,
}

// SAFETY: the handle is the driver's, and is used by one thread at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` starts; none of it is computed yet.
    pub(crate) fn record<E: From<CudaError>>(gpu: &Arc<Gpu>, work: impl FnOnce() -> Result<(), E>) -> Result<Self, E> {
        gpu.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        unsafe { driver!(cuStreamBeginCapture_v2(gpu.stream(), mode))? };
        let outcome = work();
        let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
        // Recording ends in any case, or the stream could not be used again.
        // SAFETY: it was begun above.
        let ended = unsafe { driver!(cuStreamEndCapture(gpu.stream(), &mut graph)) };
        // SAFETY: what was recorded, of work that failed too, may go once it is made executable.
        let made = unsafe {
            let made = match outcome.is_ok() && ended.is_ok() {
                true => driver!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)),
                false => Ok(()),
            };
            if !graph.is_null() {
                let _ = sys::cuGraphDestroy(graph);
            }
            made
        };
        outcome?;
        ended?;
        made?;
        Ok(Self { gpu: Arc::clone(gpu), executable })
    }

    /// Starts it. The calling thread has the GPU bound.
    pub(crate) fn launch(&self) -> Result<(), CudaError> {
        // SAFETY: the graph is whole.
        unsafe { driver!(cuGraphLaunch(self.executable, self.gpu.stream())) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours; what is under way of it goes on.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.gpu.context());
            let _ = sys::cuGraphExecDestroy(self.executable);
        }
    }
}

/// A point in the stream's work.
#[derive(Debug)]
pub(crate) struct Event {
    gpu: Arc<Gpu>,
    handle: sys::CUevent,
}

// SAFETY: the handle is the driver's, which locks it.
unsafe impl Send for Event {}

impl Event {
    /// One that is nowhere yet.
    pub(crate) fn new(gpu: &Arc<Gpu>) -> Result<Self, CudaError> {
        gpu.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written.
        unsafe { driver!(cuEventCreate(&mut handle, sys::CUevent_flags::CU_EVENT_DEFAULT as u32))? };
        Ok(Self { gpu: Arc::clone(gpu), handle })
    }

    /// Puts it behind what was started so far.
    pub(crate) fn record(&self) -> Result<(), CudaError> {
        // SAFETY: event and stream are ours.
        unsafe { driver!(cuEventRecord(self.handle, self.gpu.stream())) }
    }

    /// Waits until what was before it is done.
    pub(crate) fn wait(&self) -> Result<(), CudaError> {
        // SAFETY: the event is ours.
        unsafe { driver!(cuEventSynchronize(self.handle)) }
    }

    /// The device's time from `earlier` to this; both are done.
    pub(crate) fn since(&self, earlier: &Self) -> Result<Duration, CudaError> {
        let mut milliseconds = 0.0;
        // SAFETY: the number is written.
        unsafe { driver!(cuEventElapsedTime_v2(&mut milliseconds, earlier.handle, self.handle))? };
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.gpu.context());
            let _ = sys::cuEventDestroy_v2(self.handle);
        }
    }
}
