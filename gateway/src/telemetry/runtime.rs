//! Telemetry's own thread: a small tokio runtime on which exporters live.
//!
//! An exporter that shared the gateway's workers could be starved by them, or block one that it waits for.

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ExportThread {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl ExportThread {
    /// Starts it.
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        // The runtime is dropped on its own thread: dropping one among asynchronous tasks panics.
        std::thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, _stop: stop })
    }

    /// Where to spawn.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
