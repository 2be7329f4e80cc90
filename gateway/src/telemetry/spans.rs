//! A closed ledger becomes spans: the server span, its child and, below that, one span per phase.
//!
//! All are written after the fact with explicit times, so that no span depends on which task held it when, and
//! together, so that they arrive together. The tree has the same shape for every request, however it ended; only
//! later phases may be absent.

use std::time::{Duration, SystemTime};

use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, SpanKind},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::{
    ClosedRequest, content,
    encode::{EncodedSpans, Parent, SpanHead, SpanWriter},
    names,
    outcome::error_type,
    step_links::StepLinks,
};
use crate::ledger::{Interval, Outcome, Phase};

/// The server span of an open request: what is known of it at the start.
#[derive(Debug)]
pub(super) struct ServerSpan {
    pub(super) context: SpanContext,
    pub(super) parent: Parent,
    /// What of the caller's baggage the operation's span shows.
    pub(super) baggage: Vec<KeyValue>,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
}

/// What a route does, in the conventions' words.
pub(super) fn operation(route: &'static str) -> &'static str {
    match route {
        "/v1/chat/completions" => "chat",
        _ => "text_completion",
    }
}

/// All spans of a request that was in `steps`.
pub(super) fn encode(
    server: &ServerSpan,
    operation: &'static str,
    request: &ClosedRequest<'_>,
    steps: &StepLinks,
) -> EncodedSpans {
    let ledger = request.ledger;
    let closed = ledger.closed.unwrap_or(ledger.started);
    let whole = [ledger.started_wall, ledger.wall(closed)];
    let mut spans = EncodedSpans::of_request();
    let head = server.head((server.method, server.route), server.context.span_id(), server.parent, whole);
    spans.add(&SpanHead { kind: SpanKind::Server, ..head }, |span| describe_server(span, server, request));
    let id = RandomIdGenerator::default().new_span_id();
    let below_server = Parent { id: server.context.span_id(), is_remote: false };
    let name = (operation, request.facts.model.as_deref().unwrap_or_default());
    spans.add(&server.head(name, id, below_server, whole), |span| {
        describe_operation(span, operation, request);
        server.baggage.iter().for_each(|pair| span.attribute(pair.key.as_str(), &pair.value));
    });
    let below_operation = Parent { id, is_remote: false };
    for interval in ledger.intervals(closed) {
        let id = RandomIdGenerator::default().new_span_id();
        let times = [ledger.wall(interval.start), ledger.wall(interval.end)];
        let head = server.head((interval.phase.as_str(), ""), id, below_operation, times);
        spans.add(&head, |span| {
            describe_phase(span, interval, request);
            steps.of(&interval).for_each(|step| span.link(step, &[]));
        });
    }
    spans
}

impl ServerSpan {
    /// The head of a span of the same trace.
    fn head<'a>(
        &'a self,
        name: (&'a str, &'a str),
        id: SpanId,
        parent: Parent,
        [start, end]: [SystemTime; 2],
    ) -> SpanHead<'a> {
        SpanHead { trace: &self.context, id, parent, name, kind: SpanKind::Internal, start, end }
    }
}

fn describe_server(span: &mut SpanWriter<'_>, server: &ServerSpan, request: &ClosedRequest<'_>) {
    let facts = request.facts;
    span.attribute(names::HTTP_METHOD, server.method);
    span.attribute(names::HTTP_ROUTE, server.route);
    span.attribute(names::URL_PATH, server.route);
    span.attribute(names::URL_SCHEME, "http");
    span.attribute(names::REQUEST_ID, facts.request_id.as_str());
    span.attribute_if(names::HTTP_STATUS, facts.status.map(i64::from));
    span.attribute_if(names::ERROR_TYPE, error_type(request.outcome, facts));
    let failed_status = facts.status.is_some_and(|status| status >= 500);
    if failed_status || matches!(request.outcome, Outcome::Error | Outcome::Deadline | Outcome::Cancelled) {
        span.failed();
    }
}

/// The span that carries the `gen_ai.*` attributes.
fn describe_operation(span: &mut SpanWriter<'_>, operation: &'static str, request: &ClosedRequest<'_>) {
    let (facts, ledger) = (request.facts, request.ledger);
    let stamps = &ledger.stamps;
    span.attribute(names::OPERATION, operation);
    span.attribute(names::PROVIDER, names::LOCAL_PROVIDER);
    span.attribute(names::REQUEST_ID, facts.request_id.as_str());
    span.attribute(names::OUTCOME, request.outcome.as_str());
    describe_interruptions(span, request);
    describe_question(span, request);
    span.attribute_if(names::ERROR_TYPE, error_type(request.outcome, facts));
    span.attribute_if(names::RESPONSE_ID, facts.response_id.as_deref());
    if let Some(first) = stamps.first_token {
        span.attribute_if(names::RESPONSE_MODEL, facts.model.as_deref());
        span.attribute_if(names::RESPONSE_FIRST_CHUNK, ledger.time_to_first_token().map(|time| time.as_secs_f64()));
        span.event(names::FIRST_TOKEN, ledger.wall(first), &[]);
    }
    if matches!(request.outcome, Outcome::Stop | Outcome::Length | Outcome::Deadline) {
        span.attribute(names::RESPONSE_FINISH_REASONS, [request.outcome.as_str()].as_slice());
    }
    if stamps.queued.is_some() {
        span.attribute(names::INPUT_TOKENS, &i64::from(stamps.usage.prompt_tokens));
        span.attribute(names::OUTPUT_TOKENS, &i64::from(stamps.usage.completion_tokens));
        span.attribute(names::CACHED_TOKENS, &i64::from(stamps.usage.cached_tokens));
    }
    for pair in facts.content.as_ref().map(content::attributes).into_iter().flatten() {
        span.attribute(pair.key.as_str(), &pair.value);
    }
    if error_type(request.outcome, facts).is_some() {
        span.failed();
    }
}

/// What was asked for.
fn describe_question(span: &mut SpanWriter<'_>, request: &ClosedRequest<'_>) {
    let facts = request.facts;
    span.attribute_if(names::REQUEST_MODEL, facts.model.as_deref());
    span.attribute_if(names::REQUEST_STREAM, facts.stream);
    span.attribute_if(names::REQUEST_MAX_TOKENS, facts.max_tokens.map(i64::from));
    if let Some(sampling) = &facts.sampling {
        span.attribute(names::REQUEST_TEMPERATURE, &decimal(sampling.temperature));
        span.attribute(names::REQUEST_TOP_P, &decimal(sampling.top_p));
        span.attribute_if(names::REQUEST_TOP_K, (sampling.top_k > 0).then(|| f64::from(sampling.top_k)));
        span.attribute(names::REQUEST_SEED, &sampling.seed.cast_signed());
        span.attribute(names::REQUEST_PRESENCE_PENALTY, &decimal(sampling.presence_penalty));
        span.attribute(names::REQUEST_FREQUENCY_PENALTY, &decimal(sampling.frequency_penalty));
    }
}

/// Time that was not spent on the request itself.
fn describe_interruptions(span: &mut SpanWriter<'_>, request: &ClosedRequest<'_>) {
    let stamps = &request.ledger.stamps;
    span.attribute(names::STALL_MS, &milliseconds(stamps.stall));
    span.attribute(names::PREEMPTED_MS, &milliseconds(stamps.preempted));
    span.attribute(names::INTERFERENCE_MS, &milliseconds(stamps.interference));
}

fn describe_phase(span: &mut SpanWriter<'_>, interval: Interval, request: &ClosedRequest<'_>) {
    let (facts, stamps) = (request.facts, &request.ledger.stamps);
    let usage = stamps.usage;
    match interval.phase {
        Phase::Receive => {}
        Phase::Tokenize => {
            span.attribute_if(names::INPUT_TOKENS, stamps.queued.map(|_| i64::from(usage.prompt_tokens)));
        }
        Phase::Queue => {
            let depth = facts.queue_depth.map(|depth| i64::try_from(depth).unwrap_or(i64::MAX));
            span.attribute_if(names::QUEUE_DEPTH, depth);
        }
        Phase::Prefill => {
            span.attribute(names::INPUT_TOKENS, &i64::from(usage.prompt_tokens));
            span.attribute(names::CACHED_TOKENS, &i64::from(usage.cached_tokens));
        }
        Phase::Decode => {
            span.attribute(names::OUTPUT_TOKENS, &i64::from(usage.completion_tokens));
            span.attribute(names::STEPS, &i64::from(stamps.steps));
            describe_interruptions(span, request);
            span.attribute_if(names::TPOT_MS, request.ledger.time_per_output_token().map(milliseconds));
        }
        Phase::Deliver => {
            span.attribute(names::BYTES_SENT, &i64::try_from(facts.bytes_sent).unwrap_or(i64::MAX));
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The number that was meant: 0.7, where widening 0.7f32 gives 0.699999988.
fn decimal(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}
