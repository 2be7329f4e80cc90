//! Spans → requests: a server's span with the phases below it, and the client's span above it.

use std::collections::{BTreeSet, HashMap};

use super::otlp::{Event, Fold, KeyValue};
use crate::analysis::observation::{Attributed, ClientSide, Clock, Observation, ServerSide, Tokens, nanos};
use crate::record::Phase;
use crate::words::plain;

/// Spans kept of one trace: a request has a dozen.
const SPANS_PER_TRACE: usize = 256;

/// Names of other services kept, for the error that lists them.
const SERVICES: usize = 10;

/// Characters kept of a word from a span.
const WORD: usize = 60;

/// Why a server's span is left out whose times cannot be.
const ABSURD: &str = "server spans with negative or absurd times";

/// A span as it was read.
pub(super) struct ParsedSpan<'a> {
    pub(super) service: &'a str,
    pub(super) trace_id: &'a str,
    pub(super) id: &'a str,
    pub(super) parent: &'a str,
    pub(super) name: &'a str,
    pub(super) kind: i64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) failed: bool,
    pub(super) facts: SpanFacts,
    pub(super) marks: Marks,
}

/// The attributes that tell of a request, or of where it was served.
#[derive(Debug, Default)]
pub(super) struct SpanFacts {
    pub(super) service: String,
    scheduled_ms: Option<f64>,
    duration_ms: Option<f64>,
    stall_ms: Option<f64>,
    preempted_ms: Option<f64>,
    interference_ms: Option<f64>,
    operation: bool,
    outcome: Option<String>,
    error: Option<String>,
    status: Option<u64>,
    tokens: Tokens,
}

impl Fold for SpanFacts {
    type Element = KeyValue;

    fn fold(&mut self, KeyValue { key, value }: KeyValue) {
        let Some(value) = value.scalar() else { return };
        match key.as_str() {
            "service.name" => self.service = word(value.text()).unwrap_or_default(),
            "loadgen.scheduled_ms" => self.scheduled_ms = value.float(),
            "gateway.duration_ms" => self.duration_ms = value.float(),
            "gateway.stall_ms" => self.stall_ms = value.float(),
            "gateway.preempted_ms" => self.preempted_ms = value.float(),
            "gateway.interference_ms" => self.interference_ms = value.float(),
            "gateway.outcome" => self.outcome = word(value.text()),
            "gen_ai.operation.name" => self.operation = true,
            "error.type" => self.error = word(value.text()),
            "http.response.status_code" => self.status = value.unsigned(),
            "gen_ai.usage.input_tokens" | "loadgen.input_tokens" => self.tokens.prompt = value.unsigned(),
            "gen_ai.usage.output_tokens" | "loadgen.output_tokens" => self.tokens.output = value.unsigned(),
            "gen_ai.usage.cache_read.input_tokens" | "loadgen.cached_tokens" => self.tokens.cached = value.unsigned(),
            _ => {}
        }
    }
}

fn word(text: Option<String>) -> Option<String> {
    text.map(|text| plain(&text, WORD))
}

/// The events of a client's span.
#[derive(Debug, Default)]
pub(super) struct Marks {
    first: Option<u64>,
    last: Option<u64>,
}

impl Fold for Marks {
    type Element = Event;

    fn fold(&mut self, event: Event) {
        match event.name.as_str() {
            "first_content" => self.first = Some(event.at()),
            "last_content" => self.last = Some(event.at()),
            _ => {}
        }
    }
}

/// What a span is to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
    Operation,
    Phase(Phase),
}

#[derive(Debug)]
struct Span {
    id: u64,
    parent: u64,
    role: Role,
    start: u64,
    end: u64,
    failed: bool,
    facts: SpanFacts,
    marks: Marks,
}

impl Span {
    /// What it says that it took, to the nanosecond; else what lies between its ends.
    fn duration(&self) -> Result<u64, &'static str> {
        match self.facts.duration_ms {
            Some(millis) => nanos(millis).ok_or(ABSURD),
            None => Ok(self.end - self.start),
        }
    }
}

/// All traces so far.
#[derive(Debug, Default)]
pub(super) struct Traces {
    by_id: HashMap<u128, Vec<Span>>,
    /// Other services that had requests.
    pub(super) other_services: BTreeSet<String>,
}

impl Traces {
    /// Takes a span in; if it cannot be used although it tells of a request, says why.
    pub(super) fn add(&mut self, span: ParsedSpan<'_>, service: &str, limit: usize) -> Option<&'static str> {
        let role = role(&span)?;
        if role != Role::Client && span.service != service {
            if self.other_services.len() < SERVICES && role == Role::Server {
                self.other_services.insert(span.service.into());
            }
            return (role == Role::Server).then_some("requests to other services");
        }
        let (Some(trace_id), Some(id)) = (hex128(span.trace_id), hex64(span.id)) else {
            return Some("spans whose ids are not hexadecimal");
        };
        if span.start == 0 || span.end < span.start {
            return Some("spans that end before they begin");
        }
        if self.by_id.len() >= limit && !self.by_id.contains_key(&trace_id) {
            return Some("spans of requests beyond --limit");
        }
        let spans = self.by_id.entry(trace_id).or_default();
        if spans.iter().any(|other| other.id == id) {
            return Some("spans that came twice");
        }
        if spans.len() >= SPANS_PER_TRACE {
            return Some("spans of traces with too many");
        }
        let ParsedSpan { start, end, failed, facts, marks, .. } = span;
        spans.push(Span { id, parent: hex64(span.parent).unwrap_or(0), role, start, end, failed, facts, marks });
        None
    }

    /// The requests of each trace.
    pub(super) fn into_requests(self) -> impl Iterator<Item = (u128, Vec<Request>)> {
        self.by_id.into_iter().map(|(trace_id, spans)| (trace_id, requests(&spans)))
    }
}

/// A request, or why one could not be made of its spans.
pub(super) type Request = Result<Observation, &'static str>;

fn role(span: &ParsedSpan<'_>) -> Option<Role> {
    match span.kind {
        3 => span.facts.scheduled_ms.is_some().then_some(Role::Client),
        2 => Some(Role::Server),
        _ => match Phase::named(span.name) {
            Some(phase) => Some(Role::Phase(phase)),
            None => (span.facts.operation || span.facts.outcome.is_some()).then_some(Role::Operation),
        },
    }
}

fn requests(spans: &[Span]) -> Vec<Request> {
    let of = |role| spans.iter().filter(move |span: &&Span| span.role == role);
    let client_of = |server: &Span| of(Role::Client).find(|client| client.id == server.parent);
    let mut requests: Vec<Request> = of(Role::Server).map(|server| request(spans, server, client_of(server))).collect();
    let alone = of(Role::Client).filter(|client| !of(Role::Server).any(|server| server.parent == client.id));
    requests.extend(alone.map(|client| {
        let tokens = client.facts.tokens;
        Ok(Observation { client: Some(client_side(client)?), server: None, tokens })
    }));
    requests
}

fn request(spans: &[Span], server: &Span, client: Option<&Span>) -> Request {
    let operation = spans.iter().find(|span| span.role == Role::Operation && span.parent == server.id);
    let below = [Some(server.id), operation.map(|operation| operation.id)];
    let mut phases = [None; 6];
    for span in spans.iter().filter(|span| below.contains(&Some(span.parent))) {
        if let Role::Phase(phase) = span.role {
            let time: &mut Option<u64> = &mut phases[phase as usize];
            *time = Some(time.unwrap_or(0).saturating_add(span.duration()?));
        }
    }
    if operation.is_none() && phases.iter().all(Option::is_none) {
        return Err("server spans without phases");
    }
    let facts = operation.map_or(&server.facts, |operation| &operation.facts);
    let part = |millis: Option<f64>| nanos(millis.unwrap_or(0.0)).ok_or(ABSURD);
    let side = ServerSide {
        start: Some(server.start),
        total: operation.unwrap_or(server).duration()?,
        phases,
        attributed: Attributed {
            stalled: part(facts.stall_ms)?,
            preempted: part(facts.preempted_ms)?,
            interference: part(facts.interference_ms)?,
        },
        failure: failure(server, operation),
    };
    let side = side.checked().ok_or(ABSURD)?;
    let client_tokens = client.map(|client| client.facts.tokens).unwrap_or_default();
    Ok(Observation {
        client: client.map(client_side).transpose()?,
        server: Some(side),
        tokens: client_tokens.or(facts.tokens),
    })
}

fn failure(server: &Span, operation: Option<&Span>) -> Option<String> {
    let outcome = operation.and_then(|operation| operation.facts.outcome.as_deref());
    let failed = match outcome {
        Some(outcome) => !matches!(outcome, "stop" | "length"),
        None => server.failed || server.facts.status.is_some_and(|status| status >= 400),
    };
    let error = server.facts.error.as_deref().or_else(|| operation?.facts.error.as_deref());
    failed.then(|| error.or(outcome).unwrap_or("error").to_owned())
}

fn client_side(span: &Span) -> Result<ClientSide, &'static str> {
    let delay = nanos(span.facts.scheduled_ms.unwrap_or(0.0)).ok_or("client spans with negative or absurd times")?;
    let failed = span.failed || span.facts.error.is_some();
    ClientSide {
        clock: Clock::Wall,
        scheduled: span.start.saturating_sub(delay),
        sent: span.start,
        first: span.marks.first,
        last: span.marks.last,
        end: span.end,
        ramp: false,
        failure: failed.then(|| span.facts.error.clone().unwrap_or_else(|| "error".into())),
    }
    .checked()
    .ok_or("client spans with negative or absurd times")
}

/// 32 hexadecimal digits.
pub(super) fn hex128(text: &str) -> Option<u128> {
    (is_hex(text) && text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())?
}

/// 16 hexadecimal digits.
fn hex64(text: &str) -> Option<u64> {
    (is_hex(text) && text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
