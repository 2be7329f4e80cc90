//! The engine's steps as telemetry sees them: metrics of all, spans of a few, linked both ways with their requests.
//!
//! - A step's span is the root of a trace of its own, and of a service of its own: it serves requests of many traces,
//!   and is not what one looks for among them. It links the server spans of its requests, and each request's `prefill`
//!   and `decode` spans link the steps that began in them.
//! - Steps are sampled in time, so that the cost is the same however short they are; the sampler for new traces
//!   decides on top. Requests whose traces are not sampled are not linked.
//! - All of this runs on the engine's thread, for a step without a span and without a newcomer in a few clock reads.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use engine::{StepObserver, StepReport, StepStart};
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, Span as _, SpanBuilder, SpanContext, SpanKind, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::{
    engine_state::WatchedEngine,
    metrics::{ActiveRequest, StepMetrics},
    names,
    step_links::StepLinks,
    utilization::{RecentSteps, Utilization},
};

/// Requests that a step's span links.
const MAX_LINKS: usize = 128;

/// One request in the engine's hands.
#[derive(Debug)]
pub(super) struct RequestSteps {
    server: SpanContext,
    /// Its place among the active ones; gone once it is closed.
    active: Mutex<Option<ActiveRequest>>,
    links: Mutex<StepLinks>,
}

impl RequestSteps {
    pub(super) fn new(server: SpanContext, active: ActiveRequest) -> Self {
        Self { server, active: Mutex::new(Some(active)), links: Mutex::default() }
    }

    /// The request is over; gives the sampled steps that it was in.
    pub(super) fn close(&self) -> StepLinks {
        lock(&self.active).take();
        std::mem::take(&mut *lock(&self.links))
    }

    /// The engine begins with it.
    fn run(&self) {
        if let Some(active) = &mut *lock(&self.active) {
            active.run();
        }
    }
}

/// The requests that the engine has, by their tags.
#[derive(Debug, Default)]
pub(super) struct TaggedRequests {
    requests: Mutex<Tags>,
}

#[derive(Debug, Default)]
struct Tags {
    last: u64,
    open: HashMap<u64, Arc<RequestSteps>>,
}

/// What names a request to the engine; its steps are noted as long as this lives.
#[derive(Debug)]
pub struct StepTag {
    number: u64,
    requests: Arc<TaggedRequests>,
}

impl TaggedRequests {
    /// Gives `steps` a name.
    pub(super) fn tag(self: &Arc<Self>, steps: Arc<RequestSteps>) -> StepTag {
        let mut tags = lock(&self.requests);
        tags.last += 1;
        let number = tags.last;
        tags.open.insert(number, steps);
        StepTag { number, requests: Arc::clone(self) }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.requests).open.is_empty()
    }
}

impl StepTag {
    /// As the engine takes it.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for StepTag {
    fn drop(&mut self) {
        lock(&self.requests.requests).open.remove(&self.number);
    }
}

/// What an engine is started with.
pub(super) struct StepWatcher {
    pub(super) metrics: StepMetrics,
    pub(super) recent: Arc<RecentSteps>,
    pub(super) requests: Arc<TaggedRequests>,
    pub(super) engine: Arc<OnceLock<WatchedEngine>>,
    /// `None` where spans go nowhere or steps get none.
    pub(super) spans: Option<StepSpans>,
}

impl StepObserver for StepWatcher {
    fn begun(&mut self, step: &StepStart) {
        let sampling = self.spans.as_mut().filter(|spans| spans.is_due(step.started));
        if step.new_tags.is_empty() && sampling.is_none() {
            return;
        }
        let tags = lock(&self.requests.requests);
        let open = |tag: &u64| tags.open.get(tag).map(Arc::as_ref);
        step.new_tags.iter().filter_map(open).for_each(RequestSteps::run);
        if let Some(spans) = sampling {
            spans.begin(step, step.tags.iter().filter_map(open));
        }
    }

    fn computed(&mut self, report: &StepReport) {
        self.metrics.record(report);
        self.recent.add(report.work, report.computing());
        if let Some(spans) = &mut self.spans {
            let limits = self.engine.get().and_then(|engine| engine.facts.limits);
            spans.end(report, limits.and_then(|limits| Utilization::of(report, limits)));
        }
    }
}

/// Makes spans of some steps.
pub(super) struct StepSpans {
    tracer: SdkTracer,
    /// From one sampled step's beginning to the next one's, at least.
    interval: Duration,
    next: Option<Instant>,
    /// Of steps under way, the oldest first.
    open: VecDeque<OpenStep>,
}

struct OpenStep {
    number: u64,
    span: Span,
    started: SystemTime,
}

impl StepSpans {
    /// At most so many per second; none for 0.
    pub(super) fn new(tracer: SdkTracer, per_second: f64) -> Option<Self> {
        let interval = Duration::try_from_secs_f64(per_second.recip()).ok()?;
        Some(Self { tracer, interval, next: None, open: VecDeque::new() })
    }

    fn is_due(&self, started: Instant) -> bool {
        self.next.is_none_or(|next| started >= next)
    }

    /// Begins the span of a step, linked both ways with `requests`.
    fn begin<'a>(&mut self, step: &StepStart, requests: impl Iterator<Item = &'a RequestSteps>) {
        self.next = step.started.checked_add(self.interval);
        let started = SystemTime::now() - step.started.elapsed();
        let linked: Vec<_> = requests.filter(|request| request.server.is_sampled()).take(MAX_LINKS).collect();
        let links = linked.iter().map(|request| Link::with_context(request.server.clone())).collect();
        let builder = SpanBuilder::from_name(names::STEP)
            .with_kind(SpanKind::Internal)
            .with_start_time(started)
            .with_links(links);
        let span = self.tracer.build_with_context(builder, &Context::new());
        if !span.span_context().is_sampled() {
            return;
        }
        for request in linked {
            lock(&request.links).add(step.started, span.span_context());
        }
        self.open.push_back(OpenStep { number: step.number, span, started });
    }

    /// Ends the span of the step, if it has one.
    fn end(&mut self, report: &StepReport, utilization: Option<Utilization>) {
        let own = |open: &mut OpenStep| open.number == report.start.number;
        let Some(OpenStep { mut span, started, .. }) = self.open.pop_front_if(own) else { return };
        span.set_attributes(attributes(report, utilization));
        span.end_with_timestamp(started + report.duration);
    }
}

fn attributes(report: &StepReport, utilization: Option<Utilization>) -> Vec<KeyValue> {
    let count = |name: &'static str, number: usize| KeyValue::new(name, number as i64);
    let millis = |name: &'static str, time: Duration| KeyValue::new(name, time.as_secs_f64() * 1e3);
    let mut attributes = vec![
        KeyValue::new(names::STEP_NUMBER, report.start.number.cast_signed()),
        count(names::STEP_BATCH_SIZE, report.sequences),
        count(names::STEP_PREFILL_TOKENS, report.prefill_tokens),
        count(names::STEP_DECODE_TOKENS, report.decode_tokens),
        millis(names::STEP_PLAN_MS, report.plan),
        millis(names::STEP_FORWARD_MS, report.forward),
        millis(names::STEP_SAMPLE_MS, report.sample),
        millis(names::STEP_SEND_MS, report.send),
        KeyValue::new(names::KV_USAGE, report.kv_blocks_used as f64 / report.kv_blocks_total.max(1) as f64),
    ];
    if let Some(device) = report.device {
        attributes.push(millis(names::STEP_DEVICE_MS, device));
    }
    if let Some(Utilization { memory_bandwidth, compute }) = utilization {
        attributes.push(KeyValue::new(names::MEMORY_BANDWIDTH_UTILIZATION, memory_bandwidth));
        attributes.push(KeyValue::new(names::COMPUTE_UTILIZATION, compute));
    }
    attributes
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
