//! Measures something again and again beside the run.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::stats::Histogram;

/// A task that samples until it is stopped.
pub(super) struct Sampler {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Histogram>,
}

impl Sampler {
    /// Calls `sample` in a loop; it paces itself.
    pub(super) fn start<F, S>(mut sample: F) -> Self
    where
        F: FnMut() -> S + Send + 'static,
        S: Future<Output = Option<Duration>> + Send,
    {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut histogram = Histogram::default();
            loop {
                tokio::select! {
                    _ = &mut stopped => return histogram,
                    sampled = sample() => sampled.into_iter().for_each(|time| histogram.record(time)),
                }
            }
        });
        Self { stop, task }
    }

    /// Everything sampled.
    pub(super) async fn stop(self) -> Histogram {
        // Refused only when the task is gone already.
        let _ = self.stop.send(());
        self.task.await.unwrap_or_default()
    }
}
