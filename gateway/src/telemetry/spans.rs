//! A closed ledger becomes spans: the server span's child and, below it, one span per phase.
//!
//! All are built after the fact with explicit times, so that no span depends on which task held it when.
//! The tree has the same shape for every request, however it ended; only later phases may be absent.

use std::time::Duration;

use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    trace::{Event, Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::{ClosedRequest, content, names, outcome::error_type, step_links::StepLinks};
use crate::ledger::{Interval, Outcome, Phase};

/// What the server span is made of, at the start of a request.
pub(super) fn server_span(method: &'static str, route: &'static str) -> SpanBuilder {
    SpanBuilder::from_name(format!("{method} {route}")).with_kind(SpanKind::Server).with_attributes([
        KeyValue::new(names::HTTP_METHOD, method),
        KeyValue::new(names::HTTP_ROUTE, route),
        KeyValue::new(names::URL_PATH, route),
        KeyValue::new(names::URL_SCHEME, "http"),
    ])
}

/// What a route does, in the conventions' words.
pub(super) fn operation(route: &'static str) -> &'static str {
    match route {
        "/v1/chat/completions" => "chat",
        _ => "text_completion",
    }
}

/// Builds and ends all spans below `server`, then ends it.
pub(super) fn finish(
    tracer: &SdkTracer,
    (mut server, operation): (Span, &'static str),
    request: &ClosedRequest<'_>,
    steps: &StepLinks,
) {
    let Some(closed) = request.ledger.closed else {
        // Nothing to show but that it was there; ending it is all that can be done.
        server.end();
        return;
    };
    if server.is_recording() {
        let below = finish_operation(tracer, server.span_context(), operation, request);
        for interval in request.ledger.intervals(closed) {
            let links = steps.of(&interval);
            finish_phase(tracer, &below, (interval, links), request);
        }
    }
    server.set_attributes(server_attributes(request));
    let failed_status = request.facts.status.is_some_and(|status| status >= 500);
    if failed_status || matches!(request.outcome, Outcome::Error | Outcome::Deadline | Outcome::Cancelled) {
        server.set_status(Status::error(""));
    }
    server.end_with_timestamp(request.ledger.wall(closed));
}

fn server_attributes(request: &ClosedRequest<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new(names::REQUEST_ID, request.facts.request_id.clone())];
    attributes.extend(request.facts.status.map(|status| KeyValue::new(names::HTTP_STATUS, i64::from(status))));
    attributes.extend(error_type(request.outcome, request.facts).map(|kind| KeyValue::new(names::ERROR_TYPE, kind)));
    attributes
}

/// The span that carries the `gen_ai.*` attributes; gives the context below it.
fn finish_operation(
    tracer: &SdkTracer,
    server: &SpanContext,
    operation: &'static str,
    request: &ClosedRequest<'_>,
) -> Context {
    let name = match &request.facts.model {
        Some(model) => format!("{operation} {model}").into(),
        None => std::borrow::Cow::Borrowed(operation),
    };
    let ledger = request.ledger;
    let events =
        ledger.stamps.first_token.map(|first| vec![Event::new(names::FIRST_TOKEN, ledger.wall(first), Vec::new(), 0)]);
    let mut builder = SpanBuilder::from_name(name)
        .with_kind(SpanKind::Internal)
        .with_start_time(ledger.started_wall)
        .with_attributes(operation_attributes(operation, request));
    builder.events = events;
    let mut span = tracer.build_with_context(builder, &Context::new().with_remote_span_context(server.clone()));
    if error_type(request.outcome, request.facts).is_some() {
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(ledger.wall(ledger.closed.unwrap_or(ledger.started)));
    Context::new().with_remote_span_context(span.span_context().clone())
}

fn operation_attributes(operation: &'static str, request: &ClosedRequest<'_>) -> Vec<KeyValue> {
    let facts = request.facts;
    let stamps = &request.ledger.stamps;
    let mut attributes = vec![
        KeyValue::new(names::OPERATION, operation),
        KeyValue::new(names::PROVIDER, names::LOCAL_PROVIDER),
        KeyValue::new(names::REQUEST_ID, facts.request_id.clone()),
        KeyValue::new(names::OUTCOME, request.outcome.as_str()),
        KeyValue::new(names::STALL_MS, milliseconds(stamps.stall)),
        KeyValue::new(names::PREEMPTED_MS, milliseconds(stamps.preempted)),
        KeyValue::new(names::INTERFERENCE_MS, milliseconds(stamps.interference)),
    ];
    let mut push = |name: &'static str, value: Option<Value>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    push(names::REQUEST_MODEL, facts.model.clone().map(Value::from));
    push(names::REQUEST_STREAM, facts.stream.map(Value::from));
    push(names::REQUEST_MAX_TOKENS, facts.max_tokens.map(|tokens| i64::from(tokens).into()));
    if let Some(sampling) = &facts.sampling {
        push(names::REQUEST_TEMPERATURE, Some(decimal(sampling.temperature).into()));
        push(names::REQUEST_TOP_P, Some(decimal(sampling.top_p).into()));
        push(names::REQUEST_TOP_K, (sampling.top_k > 0).then(|| f64::from(sampling.top_k).into()));
        push(names::REQUEST_SEED, Some(sampling.seed.cast_signed().into()));
        push(names::REQUEST_PRESENCE_PENALTY, Some(decimal(sampling.presence_penalty).into()));
        push(names::REQUEST_FREQUENCY_PENALTY, Some(decimal(sampling.frequency_penalty).into()));
    }
    push(names::ERROR_TYPE, error_type(request.outcome, facts).map(Value::from));
    push(names::RESPONSE_ID, facts.response_id.clone().map(Value::from));
    if stamps.first_token.is_some() {
        push(names::RESPONSE_MODEL, facts.model.clone().map(Value::from));
        let ttft = request.ledger.time_to_first_token();
        push(names::RESPONSE_FIRST_CHUNK, ttft.map(|time| time.as_secs_f64().into()));
    }
    if matches!(request.outcome, Outcome::Stop | Outcome::Length | Outcome::Deadline) {
        let reasons: Vec<StringValue> = vec![request.outcome.as_str().into()];
        push(names::RESPONSE_FINISH_REASONS, Some(Value::Array(Array::String(reasons))));
    }
    if stamps.queued.is_some() {
        push(names::INPUT_TOKENS, Some(i64::from(stamps.usage.prompt_tokens).into()));
        push(names::OUTPUT_TOKENS, Some(i64::from(stamps.usage.completion_tokens).into()));
        push(names::CACHED_TOKENS, Some(i64::from(stamps.usage.cached_tokens).into()));
    }
    attributes.extend(facts.content.as_ref().map(content::attributes).into_iter().flatten());
    attributes
}

fn finish_phase(
    tracer: &SdkTracer,
    parent: &Context,
    (interval, links): (Interval, Vec<Link>),
    request: &ClosedRequest<'_>,
) {
    let ledger = request.ledger;
    let builder = SpanBuilder::from_name(interval.phase.as_str())
        .with_kind(SpanKind::Internal)
        .with_start_time(ledger.wall(interval.start))
        .with_links(links)
        .with_attributes(phase_attributes(interval.phase, request));
    tracer.build_with_context(builder, parent).end_with_timestamp(ledger.wall(interval.end));
}

fn phase_attributes(phase: Phase, request: &ClosedRequest<'_>) -> Vec<KeyValue> {
    let stamps = &request.ledger.stamps;
    let count = |name: &'static str, tokens: u32| KeyValue::new(name, i64::from(tokens));
    match phase {
        Phase::Receive => Vec::new(),
        Phase::Tokenize => {
            let tokens = stamps.queued.map(|_| count(names::INPUT_TOKENS, stamps.usage.prompt_tokens));
            tokens.into_iter().collect()
        }
        Phase::Queue => {
            let depth = request.facts.queue_depth.map(|depth| i64::try_from(depth).unwrap_or(i64::MAX));
            depth.map(|depth| KeyValue::new(names::QUEUE_DEPTH, depth)).into_iter().collect()
        }
        Phase::Prefill => vec![
            count(names::INPUT_TOKENS, stamps.usage.prompt_tokens),
            count(names::CACHED_TOKENS, stamps.usage.cached_tokens),
        ],
        Phase::Decode => {
            let mut attributes = vec![
                count(names::OUTPUT_TOKENS, stamps.usage.completion_tokens),
                count(names::STEPS, stamps.steps),
                KeyValue::new(names::STALL_MS, milliseconds(stamps.stall)),
                KeyValue::new(names::PREEMPTED_MS, milliseconds(stamps.preempted)),
                KeyValue::new(names::INTERFERENCE_MS, milliseconds(stamps.interference)),
            ];
            let tpot = request.ledger.time_per_output_token();
            attributes.extend(tpot.map(|time| KeyValue::new(names::TPOT_MS, milliseconds(time))));
            attributes
        }
        Phase::Deliver => {
            let bytes = i64::try_from(request.facts.bytes_sent).unwrap_or(i64::MAX);
            vec![KeyValue::new(names::BYTES_SENT, bytes)]
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The number that was meant: 0.7, where widening 0.7f32 gives 0.699999988.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}
