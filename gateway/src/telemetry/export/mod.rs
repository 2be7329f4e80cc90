//! Spans on their way out: a bounded queue, drained by a task on telemetry's own thread.
//!
//! - Ending a span never waits: it is queued, or dropped and counted.
//! - Nothing here runs on the gateway's threads, so neither can hold up the other.
//! - Memory is bounded, in spans and in bytes, whatever the collector does: what is on its way counts as well.
//! - Every span created ends in exactly one of `exported`, `dropped`, `failed`; those of one request that are
//!   dropped are dropped together, and they go out in one batch, so that no trace arrives in part.
//!
//! The way out: `queue` holds encoded spans and counts them; `worker` takes batches of them; `delivery` tries
//! until one is taken or its time is over; `grpc` and `http` carry a `message`, and `answer` says what came of it.

use std::{
    sync::{Arc, mpsc as blocking},
    time::{Duration, Instant},
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};
use tokio::{runtime::Handle, sync::mpsc};

use super::encode::EncodedSpans;

mod answer;
mod delivery;
mod grpc;
mod http;
mod message;
mod queue;
mod worker;

#[cfg(test)]
pub(super) use answer::{Refusal, Retry, Taken};
pub(super) use delivery::Transport;
pub(super) use grpc::GrpcTransport;
pub(super) use http::HttpTransport;
pub(super) use message::Envelope;
#[cfg(test)]
pub(super) use message::ExportMessage;
pub use queue::SpanCounts;
pub(super) use queue::SpanQueue;

use worker::{Order, Then, Worker};

/// How long a caller waits beyond its own deadline for the worker to say that it is done.
const ACKNOWLEDGE: Duration = Duration::from_millis(500);

/// Sizes of the queue, and times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Spans held, and their bytes.
    pub(super) queue: usize,
    pub(super) queue_bytes: usize,
    /// Spans sent together, more only where they are of one request.
    pub(super) batch: usize,
    /// How long spans wait for others.
    pub(super) delay: Duration,
    /// The time for one attempt to send a batch, and for all.
    pub(super) attempt_timeout: Duration,
    pub(super) export_timeout: Duration,
}

/// Where spans of the SDK end: in the queue, as all others; and who tells the worker to flush or to stop.
#[derive(Debug)]
pub(super) struct QueueProcessor {
    queue: Arc<SpanQueue>,
    orders: mpsc::UnboundedSender<Order>,
    export_timeout: Duration,
}

impl QueueProcessor {
    /// Starts the worker on `runtime`.
    pub(super) fn start<T: Transport>(
        transport: T,
        envelope: Envelope,
        queue: Arc<SpanQueue>,
        runtime: &Handle,
    ) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let export_timeout = queue.limits().export_timeout;
        runtime.spawn(Worker::new(transport, envelope, Arc::clone(&queue)).run(ordered));
        Self { queue, orders, export_timeout }
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
        if span.span_context.is_sampled() {
            self.queue.push(EncodedSpans::of_sdk(&span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.order(self.export_timeout, Then::Continue)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.order(timeout, Then::Stop)
    }
}
