//! A closed ledger becomes spans: the server span, its child and, below that, one span per phase.
//!
//! All are written after the fact with explicit times, so that no span depends on which task held it when, and
//! together, so that they arrive together. The tree has the same shape for every request, however it ended; only
//! later phases may be absent. What went wrong is said on every span that it ended: the phase it happened in, and those
//! above.

use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, SpanKind},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::{
    ClosedRequest, content,
    encode::{EncodedSpans, Parent, SpanHead, SpanWriter},
    held_up::{self, milliseconds},
    names,
    outcome::error_type,
    span_times::{self, SpanTime},
    step_links::StepLinks,
};
use crate::ledger::{Asked, Interval, Outcome, Phase};

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
    let intervals = ledger.intervals(ledger.closed.unwrap_or(ledger.started));
    let (times, whole) = span_times::of_phases(ledger, &intervals);
    let wrong = Wrong::of(request);
    let mut spans = EncodedSpans::of_request();
    let head = server.head((server.method, server.route), server.context.span_id(), server.parent, whole);
    spans.add(&SpanHead { kind: SpanKind::Server, ..head }, |span| describe_server(span, server, request, &wrong));
    let id = RandomIdGenerator::default().new_span_id();
    let below_server = Parent { id: server.context.span_id(), is_remote: false };
    let name = (operation, request.facts.model.as_deref().unwrap_or_default());
    spans.add(&server.head(name, id, below_server, whole), |span| {
        describe_operation(span, operation, request);
        server.baggage.iter().for_each(|pair| span.attribute(pair.key.as_str(), &pair.value));
        mark(span, &wrong);
    });
    let below_operation = Parent { id, is_remote: false };
    let last = intervals.len().saturating_sub(1);
    for (index, (interval, times)) in intervals.into_iter().zip(times).enumerate() {
        let id = RandomIdGenerator::default().new_span_id();
        let head = server.head((interval.phase.as_str(), ""), id, below_operation, times);
        spans.add(&head, |span| {
            describe_phase(span, interval, request);
            held_up::events(span, ledger, interval);
            steps.of(&interval).for_each(|step| span.link(step, &[]));
            if index == last {
                mark(span, &wrong);
            }
        });
    }
    spans
}

/// What went wrong with a request.
struct Wrong<'a> {
    /// `error.type`.
    kind: &'static str,
    /// Names the field or the limit.
    description: &'a str,
}

impl<'a> Wrong<'a> {
    /// `None` if nothing did.
    fn of(request: &ClosedRequest<'a>) -> Option<Self> {
        let kind = error_type(request.outcome, request.facts)?;
        let description = match (request.outcome, &request.facts.error) {
            // Whatever else went on, the client did not see it.
            (Outcome::Cancelled, _) => "the client left",
            (_, Some(error)) => error,
            (_, None) => kind,
        };
        Some(Self { kind, description })
    }
}

/// Says what went wrong, if anything did.
fn mark(span: &mut SpanWriter<'_>, wrong: &Option<Wrong<'_>>) {
    if let Some(Wrong { kind, description }) = wrong {
        span.attribute(names::ERROR_TYPE, *kind);
        span.failed(description);
    }
}

impl ServerSpan {
    /// The head of a span of the same trace.
    fn head<'a>(
        &'a self,
        name: (&'a str, &'a str),
        id: SpanId,
        parent: Parent,
        [start, end]: SpanTime,
    ) -> SpanHead<'a> {
        SpanHead { trace: &self.context, id, parent, name, kind: SpanKind::Internal, start, end }
    }
}

fn describe_server(
    span: &mut SpanWriter<'_>,
    server: &ServerSpan,
    request: &ClosedRequest<'_>,
    wrong: &Option<Wrong<'_>>,
) {
    let facts = request.facts;
    span.attribute(names::HTTP_METHOD, server.method);
    span.attribute(names::HTTP_ROUTE, server.route);
    span.attribute(names::URL_PATH, server.route);
    span.attribute(names::URL_SCHEME, "http");
    span.attribute(names::REQUEST_ID, facts.request_id.as_str());
    span.attribute_if(names::HTTP_STATUS, facts.status.map(i64::from));
    let failed_status = facts.status.is_some_and(|status| status >= 500);
    if failed_status || matches!(request.outcome, Outcome::Error | Outcome::Deadline | Outcome::Cancelled) {
        mark(span, wrong);
    } else if let Some(Wrong { kind, description }) = wrong {
        // By the conventions for HTTP, what is the client's fault is no error of a server's span.
        span.attribute(names::ERROR_TYPE, *kind);
        span.attribute(names::ERROR_MESSAGE, *description);
    }
}

/// The span that carries the `gen_ai.*` attributes.
fn describe_operation(span: &mut SpanWriter<'_>, operation: &'static str, request: &ClosedRequest<'_>) {
    let (facts, ledger) = (request.facts, request.ledger);
    let stamps = &ledger.stamps;
    let closed = ledger.closed.unwrap_or(ledger.started);
    span.attribute(names::OPERATION, operation);
    span.attribute(names::PROVIDER, names::LOCAL_PROVIDER);
    span.attribute(names::REQUEST_ID, facts.request_id.as_str());
    span.attribute(names::OUTCOME, request.outcome.as_str());
    span.attribute(names::DURATION_MS, &milliseconds(closed.saturating_duration_since(ledger.started)));
    describe_interruptions(span, request);
    span.attribute_if(names::REQUEST_MODEL, facts.model.as_deref());
    describe_question(span, &facts.asked);
    span.attribute_if(names::RESPONSE_ID, facts.response_id.as_deref());
    if let Some(first) = stamps.first_token {
        span.attribute_if(names::RESPONSE_MODEL, facts.model.as_deref());
        let first_chunk = ledger.time_to_first_token().filter(|_| facts.asked.stream);
        span.attribute_if(names::RESPONSE_FIRST_CHUNK, first_chunk.map(|time| time.as_secs_f64()));
        span.event(names::FIRST_TOKEN, span_times::truncated(ledger.wall(first)), &[]);
    }
    if matches!(request.outcome, Outcome::Stop | Outcome::Length) {
        span.attribute(names::RESPONSE_FINISH_REASONS, [request.outcome.as_str()].as_slice());
    }
    if stamps.queued.is_some() {
        span.attribute(names::INPUT_TOKENS, &i64::from(stamps.usage.prompt_tokens));
        span.attribute(names::OUTPUT_TOKENS, &i64::from(stamps.usage.completion_tokens));
        span.attribute(names::CACHED_TOKENS, &i64::from(stamps.usage.cached_tokens));
    }
    let reason = content::finish_reason(request.outcome);
    for pair in facts.content.iter().flat_map(|content| content::attributes(content, reason)) {
        span.attribute(pair.key.as_str(), &pair.value);
    }
}

/// What was asked for, by the client itself.
fn describe_question(span: &mut SpanWriter<'_>, asked: &Asked) {
    span.attribute_if(names::REQUEST_STREAM, asked.stream.then_some(true));
    span.attribute_if(names::REQUEST_MAX_TOKENS, asked.max_tokens.map(i64::from));
    span.attribute_if(names::REQUEST_TEMPERATURE, asked.temperature.map(decimal));
    span.attribute_if(names::REQUEST_TOP_P, asked.top_p.map(decimal));
    span.attribute_if(names::REQUEST_TOP_K, asked.top_k.map(i64::from));
    span.attribute_if(names::REQUEST_PRESENCE_PENALTY, asked.presence_penalty.map(decimal));
    span.attribute_if(names::REQUEST_FREQUENCY_PENALTY, asked.frequency_penalty.map(decimal));
    match asked.seed.map(|seed| (seed, i64::try_from(seed))) {
        None => {}
        Some((_, Ok(seed))) => span.attribute(names::REQUEST_SEED, &seed),
        // The conventions' attribute is a signed number, and this is none.
        Some((seed, Err(_))) => span.attribute(names::SEED, seed.to_string().as_str()),
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
    span.attribute(names::DURATION_MS, &milliseconds(interval.end.saturating_duration_since(interval.start)));
    match interval.phase {
        Phase::Receive => {}
        Phase::Tokenize => {
            span.attribute_if(names::PROMPT_TOKENS, stamps.queued.map(|_| i64::from(usage.prompt_tokens)));
        }
        Phase::Queue => {
            let depth = facts.queue_depth.map(|depth| i64::try_from(depth).unwrap_or(i64::MAX));
            span.attribute_if(names::QUEUE_DEPTH, depth);
            held_up::describe_queue(span, stamps.blocked);
        }
        Phase::Prefill => {
            span.attribute(names::PROMPT_TOKENS, &i64::from(usage.prompt_tokens));
            span.attribute(names::PREFIX_TOKENS, &i64::from(usage.cached_tokens));
            // Those that were computed; only if all of them were.
            let computed = stamps.first_token.map(|_| usage.prompt_tokens.saturating_sub(usage.cached_tokens));
            span.attribute_if(names::TOKENS_PER_SECOND, computed.and_then(|tokens| per_second(tokens, interval)));
            held_up::describe_steps(span, &stamps.prefill);
        }
        Phase::Decode => {
            span.attribute(names::COMPLETION_TOKENS, &i64::from(usage.completion_tokens));
            // The first was prefill's.
            let tokens = usage.completion_tokens.saturating_sub(1);
            span.attribute_if(names::TOKENS_PER_SECOND, per_second(tokens, interval));
            held_up::describe_steps(span, &stamps.decode);
            let more = (stamps.more_interruptions > 0).then(|| i64::from(stamps.more_interruptions));
            span.attribute_if(names::MORE_INTERRUPTIONS, more);
            span.attribute_if(names::TPOT_MS, request.ledger.time_per_output_token().map(milliseconds));
        }
        Phase::Deliver => {
            span.attribute(names::BYTES_SENT, &i64::try_from(facts.bytes_sent).unwrap_or(i64::MAX));
        }
    }
}

/// Of so many tokens in a phase, to a thousandth; only where there were any.
fn per_second(tokens: u32, phase: Interval) -> Option<f64> {
    let seconds = phase.end.saturating_duration_since(phase.start).as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| (f64::from(tokens) / seconds * 1e3).round() / 1e3)
}

/// The number that was meant: 0.7, where widening 0.7f32 gives 0.699999988. That is what the shorter number's own
/// spelling says.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}
