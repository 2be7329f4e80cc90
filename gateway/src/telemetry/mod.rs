//! Traces and metrics of the gateway: one [`Telemetry`] handle, given to whoever needs it.
//!
//! [`Telemetry::begin`] gives a request's server span its ids, and decides whether it is recorded;
//! [`Telemetry::finish`] turns the closed ledger into its spans and the histograms, once.
//!
//! - `settings` says what holds, of the configuration and of `variables`; `setup` makes providers and exporters of it, on `runtime`'s own thread;
//! - `spans` says what a request's spans are, with `names` and `content`; `encode` makes bytes of them, as
//!   `protobuf` has it;
//! - `export` queues them, sends them and counts what became of each;
//! - `metrics` holds the instruments that are recorded into, with `buckets`; `observed` those read at a scrape;
//! - `logs` starts logging.
//!
//! Nothing here waits for a collector except [`Telemetry::shutdown`].

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use engine::{Engine, EngineStats, StepObserver};
use http::HeaderMap;
use opentelemetry::{
    Context,
    metrics::MeterProvider as _,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use prometheus::TextEncoder;

use self::{encode::Parent, settings::Settings, spans::ServerSpan};
use crate::{
    config::TelemetryConfig,
    ledger::{Facts, Ledger, Outcome},
};

mod buckets;
mod content;
mod encode;
mod export;
pub mod logs;
mod metrics;
mod names;
mod observed;
mod outcome;
mod process;
mod protobuf;
mod runtime;
mod settings;
mod setup;
mod spans;
#[cfg(test)]
mod tests;
mod variables;

pub use export::SpanCounts;
pub use setup::TelemetryError;

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    propagator: TraceContextPropagator,
    metrics: metrics::Metrics,
    engine: Arc<OnceLock<StatsReader>>,
    capture_content: bool,
    parts: setup::Parts,
}

type StatsReader = Box<dyn Fn() -> EngineStats + Send + Sync>;

/// The open server span of one request, and its place among the active ones.
#[derive(Debug)]
pub struct RequestTrace {
    server: ServerSpan,
    operation: &'static str,
    active: metrics::ActiveRequest,
}

/// A closed request, as telemetry sees it.
#[derive(Debug)]
pub struct ClosedRequest<'a> {
    /// Its times; `closed` is set.
    pub ledger: &'a Ledger,
    /// What is known of it.
    pub facts: &'a Facts,
    /// How it ended.
    pub outcome: Outcome,
}

/// The gauge `gateway.requests.active{state}` moves between these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActiveState {
    /// In `receive`, `tokenize` or `queue`.
    Waiting,
    /// In `prefill` or `decode`.
    Running,
}

impl Telemetry {
    /// Sets up traces and metrics. Without an endpoint nothing is exported; ids and metrics are there all
    /// the same.
    pub fn init(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let settings = Settings::new(config, |name| std::env::var(name).ok())?;
        Ok(Self::assemble(setup::build(config, &settings)?, config.capture_content))
    }

    fn assemble(parts: setup::Parts, capture_content: bool) -> Self {
        let meter = parts.meter_provider.meter("gateway");
        let engine = Arc::new(OnceLock::<StatsReader>::new());
        let reader = Arc::clone(&engine);
        observed::register(&meter, move || reader.get().map(|read| read()), Arc::clone(&parts.queue));
        let inner = Inner {
            propagator: TraceContextPropagator::new(),
            metrics: metrics::Metrics::new(&meter),
            engine,
            capture_content,
            parts,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Opens the server span of a request to `route` (a route pattern, never a client's path), continuing
    /// the trace named in `headers` if there is a valid one.
    pub fn begin(
        &self,
        method: &'static str,
        route: &'static str,
        headers: &HeaderMap,
        ledger: &Ledger,
    ) -> RequestTrace {
        let inner = &self.inner;
        let context = inner.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let head = SpanBuilder::from_name(route).with_kind(SpanKind::Server).with_start_time(ledger.started_wall);
        let span = inner.parts.ids.build_with_context(head, &context);
        let parent = context.span().span_context().clone();
        RequestTrace {
            server: ServerSpan {
                context: span.span_context().clone(),
                parent: Parent { id: parent.span_id(), is_remote: parent.is_remote() },
                method,
                route,
            },
            operation: spans::operation(route),
            active: inner.metrics.active(),
        }
    }

    /// Ends the request's spans and records its histograms and counters.
    pub fn finish(&self, trace: RequestTrace, request: ClosedRequest<'_>) {
        let RequestTrace { server, operation, active } = trace;
        drop(active);
        let inner = &self.inner;
        inner.metrics.finish(operation, &request);
        if inner.parts.exporting && server.context.is_sampled() {
            inner.parts.queue.push(spans::encode(&server, operation, &request));
        }
    }

    /// Records the gap between two tokens of one answer.
    pub fn inter_token(&self, gap: Duration) {
        self.inner.metrics.inter_token(gap);
    }

    /// Whether [`Facts::content`] is worth filling in.
    pub fn captures_content(&self) -> bool {
        self.inner.capture_content
    }

    /// What an engine is started with, so that its steps are measured.
    pub fn step_observer(&self) -> StepObserver {
        let metrics = self.inner.metrics.step();
        Box::new(move |report| metrics.record(report))
    }

    /// Reads `engine`'s gauges at each scrape from now on. There is one engine: later calls change nothing.
    pub fn watch_engine(&self, engine: &Engine) {
        let engine = engine.clone();
        self.watch_stats(move || engine.stats());
    }

    fn watch_stats(&self, read: impl Fn() -> EngineStats + Send + Sync + 'static) {
        let _ = self.inner.engine.set(Box::new(read));
    }

    /// Everything as Prometheus text.
    pub fn render_prometheus(&self) -> String {
        // Encoding fails only for families without metrics, and the registry gives none.
        TextEncoder::new().encode_to_string(&self.inner.parts.registry.gather()).unwrap_or_default()
    }

    /// What became of the spans so far.
    pub fn span_counts(&self) -> SpanCounts {
        self.inner.parts.queue.counts()
    }

    /// Exports all spans that ended before the call. Blocks: not for asynchronous tasks.
    pub fn flush(&self) -> bool {
        self.inner.parts.tracer_provider.force_flush().is_ok()
    }

    /// Exports what is left, for at most `timeout`, and stops. Blocks: not for asynchronous tasks. Afterwards
    /// `created = exported + dropped + failed`: what ends later is dropped.
    pub fn shutdown(&self, timeout: Duration) -> SpanCounts {
        let parts = &self.inner.parts;
        if let Err(error) = parts.tracer_provider.shutdown_with_timeout(timeout) {
            tracing::debug!(%error, "not every span was exported");
        }
        if let Err(error) = parts.meter_provider.shutdown_with_timeout(timeout) {
            tracing::debug!(%error, "not every metric was pushed");
        }
        let counts = self.span_counts();
        if parts.exporting {
            let SpanCounts { created, exported, dropped, failed } = counts;
            tracing::info!(created, exported, dropped, failed, "spans are accounted for");
        }
        counts
    }
}

impl RequestTrace {
    /// 32 lowercase hex digits.
    pub fn trace_id(&self) -> String {
        self.context().trace_id().to_string()
    }

    /// The server span, as other spans refer to it.
    pub fn context(&self) -> &SpanContext {
        &self.server.context
    }

    /// The `traceresponse`/`traceparent` value that names the server span.
    pub fn traceparent(&self) -> String {
        let context = self.context();
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
    }

    /// Counts the request as running from now on: its first step has begun.
    pub fn run(&mut self) {
        self.active.become_state(ActiveState::Running);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Telemetry").field("spans", &self.parts.queue.counts()).finish_non_exhaustive()
    }
}
