//! Traces and metrics of the gateway: one [`Telemetry`] handle, given to whoever needs it.
//!
//! [`Telemetry::begin`] gives a request's server span its ids, and decides whether it is recorded;
//! [`Telemetry::finish`] turns the closed ledger into its spans and the histograms, once.
//!
//! - `settings` says what holds, of the configuration and of `variables`; `setup` makes providers and exporters of
//!   it, on `runtime`'s own thread;
//! - `propagation` reads which trace a caller wants continued;
//! - `spans` says what a request's spans are, with `span_times`, `held_up`, `names` and `content`; `encode` makes bytes
//!   of them, as `protobuf` has it;
//! - `export` queues them, sends them and counts what became of each;
//! - `steps` makes metrics of the engine's steps and spans of some, with `step_links` and `utilization`;
//! - `metrics` holds the instruments that are recorded into, with `buckets`; `observed` and `engine_state` those read
//!   at a scrape;
//! - `logs` starts logging.
//!
//! Nothing here waits for a collector except [`Telemetry::shutdown`].

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use engine::{DeviceInfo, Engine, StepObserver};
use http::HeaderMap;
use opentelemetry::{
    metrics::MeterProvider as _,
    trace::{Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider as _},
};
use opentelemetry_sdk::trace::SdkTracer;
use prometheus::TextEncoder;

use self::{
    encode::{Origin, Parent},
    engine_state::WatchedEngine,
    settings::Settings,
    spans::ServerSpan,
    steps::{RequestSteps, StepSpans, StepWatcher, TaggedRequests},
    utilization::RecentSteps,
};
use crate::{
    config::TelemetryConfig,
    ledger::{Content, Facts, Ledger, Outcome},
};

mod buckets;
mod content;
mod encode;
mod engine_state;
mod export;
mod held_up;
pub mod logs;
mod metrics;
mod names;
mod observed;
mod outcome;
mod process;
mod propagation;
mod protobuf;
mod runtime;
mod settings;
mod setup;
mod span_times;
mod spans;
mod step_links;
mod steps;
#[cfg(test)]
mod tests;
mod utilization;
mod variables;

pub use export::SpanCounts;
pub(crate) use outcome::error_type;
pub use setup::TelemetryError;
pub use steps::StepTag;

/// Spans of engine steps per second, unless configured.
const STEP_SPANS_PER_SECOND: f64 = 10.0;

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    /// Of the engine's steps.
    tracer: SdkTracer,
    metrics: metrics::Metrics,
    engine: Arc<OnceLock<WatchedEngine>>,
    recent_steps: Arc<RecentSteps>,
    tagged: Arc<TaggedRequests>,
    step_spans_per_second: f64,
    baggage_attributes: Vec<String>,
    capture: Option<content::Capture>,
    parts: setup::Parts,
}

/// The open server span of one request, and what the engine's steps are to it.
#[derive(Debug)]
pub struct RequestTrace {
    server: ServerSpan,
    operation: &'static str,
    steps: Arc<RequestSteps>,
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
    /// From its first step on.
    Running,
}

impl Telemetry {
    /// Sets up traces and metrics. Without an endpoint nothing is exported; ids and metrics are there all
    /// the same.
    pub fn init(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        Self::init_on(config, None)
    }

    /// The same for a process that computes on a GPU, which it names beside itself.
    pub fn init_on(config: &TelemetryConfig, device: Option<&DeviceInfo>) -> Result<Self, TelemetryError> {
        let settings = Settings::new(config, |name| std::env::var(name).ok())?;
        Self::assemble(setup::build(config, &settings, device)?, config)
    }

    fn assemble(parts: setup::Parts, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let meter = parts.meter_provider.meter("gateway");
        let (engine, recent_steps) = (Arc::default(), Arc::default());
        observed::register(&meter, Arc::clone(&parts.queue));
        engine_state::register(&meter, &engine, &recent_steps);
        let inner = Inner {
            tracer: parts.tracer_provider.tracer(Origin::Engine.scope()),
            metrics: metrics::Metrics::new(&meter),
            engine,
            recent_steps,
            tagged: Arc::default(),
            step_spans_per_second: config.step_spans_per_second.unwrap_or(STEP_SPANS_PER_SECOND),
            baggage_attributes: config.baggage_attributes.clone(),
            capture: content::Capture::new(config)?,
            parts,
        };
        Ok(Self { inner: Arc::new(inner) })
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
        let caller = propagation::parent(headers);
        let head = SpanBuilder::from_name(route).with_kind(SpanKind::Server).with_start_time(ledger.started_wall);
        let context = inner.parts.ids.build_with_context(head, &caller).span_context().clone();
        let caller = caller.span();
        let parent = Parent { id: caller.span_context().span_id(), is_remote: caller.span_context().is_remote() };
        let baggage = propagation::baggage(headers, &inner.baggage_attributes);
        let steps = Arc::new(RequestSteps::new(context.clone(), inner.metrics.active()));
        RequestTrace {
            server: ServerSpan { context, parent, baggage, method, route },
            operation: spans::operation(route),
            steps,
        }
    }

    /// Ends the request's spans and records its histograms and counters.
    pub fn finish(&self, trace: RequestTrace, request: ClosedRequest<'_>) {
        let RequestTrace { server, operation, steps } = trace;
        let steps = steps.close();
        let inner = &self.inner;
        inner.metrics.finish(operation, &request);
        if inner.parts.exporting && server.context.is_sampled() {
            inner.parts.queue.push(spans::encode(&server, operation, &request, &steps));
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
    pub fn step_observer(&self) -> Box<dyn StepObserver> {
        let inner = &self.inner;
        let spans = || StepSpans::new(inner.tracer.clone(), inner.step_spans_per_second);
        Box::new(StepWatcher {
            metrics: inner.metrics.step(),
            recent: Arc::clone(&inner.recent_steps),
            requests: Arc::clone(&inner.tagged),
            engine: Arc::clone(&inner.engine),
            spans: inner.parts.exporting.then(spans).flatten(),
        })
    }

    /// Gives a request a name for the engine, so that its steps are noted.
    pub fn tag(&self, trace: &RequestTrace) -> StepTag {
        self.inner.tagged.tag(Arc::clone(&trace.steps))
    }

    /// Reads `engine`'s gauges at each scrape from now on. There is one engine: later calls change nothing.
    pub fn watch_engine(&self, engine: &Engine) {
        self.watch(WatchedEngine::new(engine.clone()));
    }

    fn watch(&self, engine: WatchedEngine) {
        let _ = self.inner.engine.set(engine);
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
        self.server.context.trace_id().to_string()
    }

    /// The `traceresponse`/`traceparent` value that names the server span.
    pub fn traceparent(&self) -> String {
        let context: &SpanContext = &self.server.context;
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Telemetry").field("spans", &self.parts.queue.counts()).finish_non_exhaustive()
    }
}
