//! Spans on their way out: a bounded queue, drained by a task on telemetry's own thread.
//!
//! - Ending a span never waits: it is queued, or dropped and counted.
//! - Nothing here runs on the gateway's threads, so neither can hold up the other.
//! - Memory is bounded by the queue and [`CONCURRENT_EXPORTS`] batches, whatever the collector does.
//! - Every span created ends in exactly one of `exported`, `dropped`, `failed`. Spans that a collector rejects
//!   while it accepts the rest of a batch (OTLP's partial success) have failed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc as blocking,
    },
    time::{Duration, Instant},
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{otlp::SendSpans, size::encoded_size};

/// Exports under way at once, so that a slow collector is limited by its latency only at this many batches.
const CONCURRENT_EXPORTS: usize = 4;

/// Bytes of one export: collectors refuse a gRPC message of more than 4 MiB by default.
const BATCH_BYTES: usize = 3 << 20;

/// How long a caller waits beyond its own deadline for the worker to say that it is done.
const ACKNOWLEDGE: Duration = Duration::from_millis(500);

/// What became of the spans so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Ended and meant for export.
    pub created: u64,
    /// Accepted by the collector.
    pub exported: u64,
    /// Never sent: the queue was full, or the time to shut down was over.
    pub dropped: u64,
    /// Sent, but refused or not answered in time.
    pub failed: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    created: AtomicU64,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    failing: AtomicBool,
}

impl Counters {
    pub(super) fn read(&self) -> SpanCounts {
        SpanCounts {
            exported: self.exported.load(Ordering::Acquire),
            dropped: self.dropped.load(Ordering::Acquire),
            failed: self.failed.load(Ordering::Acquire),
            // Last, so that a reading never shows more spans gone than created.
            created: self.created.load(Ordering::Acquire),
        }
    }

    /// Logs only when exports begin to fail and when they work again.
    fn report(&self, result: &Result<(), String>) {
        match result {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(counts = ?self.read(), "spans are exported again");
            }
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(error, counts = ?self.read(), "spans cannot be exported");
            }
            _ => {}
        }
    }
}

/// Sizes of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) queue: usize,
    pub(super) batch: usize,
    pub(super) delay: Duration,
    pub(super) export_timeout: Duration,
}

/// The side on which spans end.
#[derive(Debug)]
pub(super) struct QueueProcessor {
    spans: mpsc::Sender<SpanData>,
    orders: mpsc::UnboundedSender<Order>,
    batch_ready: Arc<Notify>,
    counters: Arc<Counters>,
    limits: Limits,
}

/// What the worker is asked for: to export all that is queued by a deadline, and whether to go on.
#[derive(Debug)]
struct Order {
    deadline: Instant,
    then: Then,
    done: blocking::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Continue,
    Stop,
}

impl QueueProcessor {
    /// Starts the worker on `runtime`.
    pub(super) fn start<E: SendSpans + 'static>(
        exporter: E,
        limits: Limits,
        counters: Arc<Counters>,
        runtime: &Handle,
    ) -> Self {
        let (spans, queued) = mpsc::channel(limits.queue);
        let (orders, ordered) = mpsc::unbounded_channel();
        let batch_ready = Arc::new(Notify::new());
        let worker = Worker {
            exporter: Arc::new(exporter),
            spans: queued,
            batch_ready: Arc::clone(&batch_ready),
            exports: JoinSet::new(),
            behind: false,
            counters: Arc::clone(&counters),
            limits,
        };
        runtime.spawn(worker.run(ordered));
        Self { spans, orders, batch_ready, counters, limits }
    }

    fn order(&self, within: Duration, then: Then) -> OTelSdkResult {
        let (done, finished) = blocking::channel();
        let order = Order { deadline: Instant::now() + within, then, done };
        self.orders.send(order).map_err(|_| OTelSdkError::AlreadyShutdown)?;
        match finished.recv_timeout(within + ACKNOWLEDGE) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(OTelSdkError::Timeout(within)),
        }
    }
}

impl SpanProcessor for QueueProcessor {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        self.counters.created.fetch_add(1, Ordering::AcqRel);
        if self.spans.try_send(span).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::AcqRel);
        }
        if self.spans.max_capacity() - self.spans.capacity() >= self.limits.batch {
            self.batch_ready.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.order(self.limits.export_timeout, Then::Continue)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.order(timeout, Then::Stop)
    }
}

/// The side from which they leave.
struct Worker<E> {
    exporter: Arc<E>,
    spans: mpsc::Receiver<SpanData>,
    batch_ready: Arc<Notify>,
    exports: JoinSet<()>,
    /// Whether spans were left for want of a place.
    behind: bool,
    counters: Arc<Counters>,
    limits: Limits,
}

impl<E: SendSpans + 'static> Worker<E> {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut tick = interval(self.limits.delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let batch_ready = Arc::clone(&self.batch_ready);
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return self.stop().await };
                    if order.then == Then::Stop {
                        self.spans.close();
                    }
                    let finished = timeout_at(order.deadline.into(), self.drain()).await.is_ok();
                    if order.then == Then::Stop {
                        self.stop().await;
                    }
                    // The asker may have given up waiting; the counts are right all the same.
                    let _ = order.done.send(finished);
                    if order.then == Then::Stop {
                        return;
                    }
                }
                () = batch_ready.notified() => { self.start_exports(); }
                _ = tick.tick() => { self.start_exports(); }
                Some(_) = self.exports.join_next() => if self.behind { self.start_exports(); },
            }
        }
    }

    /// Sends batches while there are spans and places; says how many spans went.
    fn start_exports(&mut self) -> usize {
        let mut sent = 0;
        while self.exports.len() < CONCURRENT_EXPORTS {
            let spans = self.take_batch();
            if spans.is_empty() {
                break;
            }
            sent += spans.len();
            let exporter = Arc::clone(&self.exporter);
            let limit = self.limits.export_timeout;
            let batch = Batch { spans: spans.len() as u64, exported: 0, counters: Arc::clone(&self.counters) };
            self.exports.spawn(async move { batch.settle(timeout(limit, exporter.send(spans)).await) });
        }
        self.behind = !self.spans.is_empty();
        sent
    }

    fn take_batch(&mut self) -> Vec<SpanData> {
        let mut batch = Vec::with_capacity(self.spans.len().min(self.limits.batch));
        let mut bytes = 0;
        while batch.len() < self.limits.batch && bytes < BATCH_BYTES {
            let Ok(span) = self.spans.try_recv() else { break };
            bytes += encoded_size(&span);
            batch.push(span);
        }
        batch
    }

    /// Exports what is queued now and waits for all that is under way. Spans that come later are left: they
    /// must not keep it from ending.
    async fn drain(&mut self) {
        let mut queued = self.spans.len();
        loop {
            if queued > 0 {
                queued = queued.saturating_sub(self.start_exports());
            }
            if self.exports.join_next().await.is_none() {
                return;
            }
        }
    }

    /// Gives up what is under way (it failed) and what is queued (it is dropped).
    async fn stop(&mut self) {
        self.spans.close();
        self.exports.shutdown().await;
        while self.spans.recv().await.is_some() {
            self.counters.dropped.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The spans of one export: failed, unless settled otherwise, also when the export panics or is given up.
struct Batch {
    spans: u64,
    exported: u64,
    counters: Arc<Counters>,
}

impl Batch {
    /// Takes what came of the export: how many spans were rejected of those taken, or why none was.
    fn settle(mut self, result: Result<Result<u64, String>, tokio::time::error::Elapsed>) {
        let rejected = result.unwrap_or_else(|_| Err("the collector does not answer".to_owned()));
        self.exported = rejected.as_ref().map_or(0, |&rejected| self.spans - rejected.min(self.spans));
        let counters = Arc::clone(&self.counters);
        drop(self);
        counters.report(&rejected.and_then(|rejected| match rejected {
            0 => Ok(()),
            _ => Err(format!("the collector rejected {rejected} spans")),
        }));
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.counters.exported.fetch_add(self.exported, Ordering::AcqRel);
        self.counters.failed.fetch_add(self.spans - self.exported, Ordering::AcqRel);
    }
}
