//! Traces and metrics of the gateway: one [`Telemetry`] handle, given to whoever needs it.
//!
//! [`Telemetry::begin`] makes a request's server span (so that its ids are known from the start);
//! [`Telemetry::finish`] turns the closed ledger into the other spans and the histograms, once.
//!
//! - `settings` says what holds; `setup` makes providers and exporters of it, on `runtime`'s own thread;
//! - `export` queues spans, sends them and counts what became of each;
//! - `propagation` reads which trace a caller wants continued;
//! - `spans` builds a request's spans, with `names` and `content`;
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
    metrics::MeterProvider as _,
    trace::{Span as _, Tracer, TracerProvider as _},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use prometheus::TextEncoder;

use self::settings::Settings;
use crate::{
    config::TelemetryConfig,
    ledger::{Content, Facts, Ledger, Outcome},
};

mod buckets;
mod content;
mod export;
pub mod logs;
mod metrics;
mod names;
mod observed;
mod outcome;
mod process;
mod propagation;
mod runtime;
mod settings;
mod setup;
mod size;
mod spans;
#[cfg(test)]
mod tests;

pub use export::SpanCounts;
pub(crate) use outcome::error_type;
pub use setup::TelemetryError;

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    tracer: SdkTracer,
    metrics: metrics::Metrics,
    engine: Arc<OnceLock<StatsReader>>,
    capture: Option<content::Capture>,
    parts: setup::Parts,
}

type StatsReader = Box<dyn Fn() -> EngineStats + Send + Sync>;

/// The open server span of one request, and its place among the active ones.
#[derive(Debug)]
pub struct RequestTrace {
    span: Span,
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
        Ok(Self::assemble(setup::build(config, &settings)?, content::Capture::new(config)?))
    }

    fn assemble(parts: setup::Parts, capture: Option<content::Capture>) -> Self {
        let meter = parts.meter_provider.meter("gateway");
        let engine = Arc::new(OnceLock::<StatsReader>::new());
        let reader = Arc::clone(&engine);
        observed::register(&meter, move || reader.get().map(|read| read()), Arc::clone(&parts.counters));
        let inner = Inner {
            tracer: parts.tracer_provider.tracer("gateway"),
            metrics: metrics::Metrics::new(&meter),
            engine,
            capture,
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
        let parent = propagation::parent(headers);
        let builder = spans::server_span(method, route).with_start_time(ledger.started_wall);
        RequestTrace {
            span: inner.tracer.build_with_context(builder, &parent),
            operation: spans::operation(route),
            active: inner.metrics.active(),
        }
    }

    /// Ends the request's spans and records its histograms and counters.
    pub fn finish(&self, trace: RequestTrace, request: ClosedRequest<'_>) {
        let RequestTrace { span, operation, active } = trace;
        drop(active);
        self.inner.metrics.finish(operation, &request);
        if self.inner.parts.exporting {
            spans::finish(&self.inner.tracer, span, operation, &request);
        }
    }

    /// Records the gap between two tokens of one answer.
    pub fn inter_token(&self, gap: Duration) {
        self.inner.metrics.inter_token(gap);
    }

    /// Whether [`Facts::content`] is worth filling in.
    pub fn captures_content(&self) -> bool {
        self.inner.capture.is_some()
    }

    /// Takes from captured content what may not be seen.
    pub fn clean(&self, content: &mut Content) {
        if let Some(capture) = &self.inner.capture {
            capture.clean(content);
        }
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
        self.inner.parts.counters.read()
    }

    /// Exports all spans that ended before the call. Blocks: not for asynchronous tasks.
    pub fn flush(&self) -> bool {
        self.inner.parts.tracer_provider.force_flush().is_ok()
    }

    /// Exports what is left, for at most `timeout`, and stops. Blocks: not for asynchronous tasks. Afterwards
    /// no span is created, and `created = exported + dropped + failed`.
    pub fn shutdown(&self, timeout: Duration) -> SpanCounts {
        if let Err(error) = self.inner.parts.tracer_provider.shutdown_with_timeout(timeout) {
            tracing::debug!(%error, "not every span was exported");
        }
        if let Err(error) = self.inner.parts.meter_provider.shutdown_with_timeout(timeout) {
            tracing::debug!(%error, "not every metric was pushed");
        }
        self.span_counts()
    }
}

impl RequestTrace {
    /// 32 lowercase hex digits.
    pub fn trace_id(&self) -> String {
        self.span.span_context().trace_id().to_string()
    }

    /// The `traceresponse`/`traceparent` value that names the server span.
    pub fn traceparent(&self) -> String {
        let context = self.span.span_context();
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
    }

    /// Counts the request as running from now on: its first step has begun.
    pub fn run(&mut self) {
        self.active.become_state(ActiveState::Running);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Telemetry").field("spans", &self.parts.counters.read()).finish_non_exhaustive()
    }
}
