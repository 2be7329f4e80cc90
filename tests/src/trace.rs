//! The spans of one request as a collector got them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};

/// The phases of a request, in order.
pub const PHASES: [&str; 6] = ["receive", "tokenize", "queue", "prefill", "decode", "deliver"];

/// One span, made easy to look at.
#[derive(Debug, Clone)]
pub struct ReceivedSpan {
    /// `service.name`.
    pub service: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub id: String,
    /// 16 hex digits, or empty.
    pub parent: String,
    /// `tracestate`.
    pub state: String,
    /// Its name.
    pub name: String,
    /// `SPAN_KIND_…`.
    pub kind: &'static str,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Whether its status is an error.
    pub failed: bool,
    /// What its status says.
    pub description: String,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Names of events.
    pub events: Vec<String>,
    /// Trace and span ids of the spans it links.
    pub links: Vec<(String, String)>,
}

impl ReceivedSpan {
    /// The spans of one export.
    pub(crate) fn all(request: ExportTraceServiceRequest) -> Vec<Self> {
        let mut spans = Vec::new();
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
            let service = attributes.get("service.name").cloned().unwrap_or_default();
            let scopes = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(scopes.map(|span| Self::new(service.clone(), span)));
        }
        spans
    }

    fn new(service: String, span: Span) -> Self {
        Self {
            service,
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            state: span.trace_state.clone(),
            kind: span.kind().as_str_name(),
            failed: span.status.as_ref().is_some_and(|status| status.code == 2),
            description: span.status.map(|status| status.message).unwrap_or_default(),
            name: span.name,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: texts(span.attributes),
            events: span.events.into_iter().map(|event| event.name).collect(),
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        }
    }

    /// Whether it links `other`.
    pub fn links_to(&self, other: &Self) -> bool {
        self.links.iter().any(|(trace, span)| (trace, span) == (&other.trace_id, &other.id))
    }

    /// One attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Nanoseconds from start to end.
    pub fn nanos(&self) -> u64 {
        self.end - self.start
    }

    /// The nanoseconds that it says it took, of which its times are whole microseconds.
    pub fn exact_nanos(&self) -> Option<u64> {
        let millis: f64 = self.attribute("gateway.duration_ms")?.parse().ok()?;
        Some((millis * 1e6).round() as u64)
    }
}

/// What a collector has of one trace.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its spans.
    pub spans: Vec<ReceivedSpan>,
}

impl Trace {
    /// The spans of trace `id` among `spans`.
    pub fn of(id: &str, spans: &[ReceivedSpan]) -> Self {
        Self { spans: spans.iter().filter(|span| span.trace_id == id).cloned().collect() }
    }

    /// The span of the client, if it exports its own.
    pub fn client(&self) -> Option<&ReceivedSpan> {
        self.spans.iter().find(|span| span.kind == SpanKind::Client.as_str_name())
    }

    /// The server span.
    pub fn server(&self) -> Option<&ReceivedSpan> {
        self.spans.iter().find(|span| span.kind == SpanKind::Server.as_str_name())
    }

    /// The span with the `gen_ai.*` attributes.
    pub fn operation(&self) -> Option<&ReceivedSpan> {
        let server = self.server()?;
        self.spans.iter().find(|span| span.parent == server.id)
    }

    /// The phases, in order of time.
    pub fn phases(&self) -> Vec<&ReceivedSpan> {
        let Some(operation) = self.operation() else { return Vec::new() };
        let mut phases: Vec<_> = self.spans.iter().filter(|span| span.parent == operation.id).collect();
        phases.sort_by_key(|span| (span.start, PHASES.iter().position(|phase| *phase == span.name)));
        phases
    }

    /// Whether the tree is whole: one server span, one operation below it, below that the phases in order from its
    /// start to its end, each a microsecond after the one before, and nothing else but the client's span above.
    pub fn is_complete(&self) -> bool {
        let (Some(server), Some(operation)) = (self.server(), self.operation()) else { return false };
        let phases = self.phases();
        let mut until = server.start;
        let consecutive = phases.iter().zip(PHASES).all(|(span, phase)| {
            let follows = span.name == phase && span.start == until && span.end > span.start;
            until = span.end + 1_000;
            follows && span.start.is_multiple_of(1_000) && span.end.is_multiple_of(1_000)
        });
        consecutive
            && !phases.is_empty()
            && until == server.end + 1_000
            && (operation.start, operation.end) == (server.start, server.end)
            && self.client().is_none_or(|client| client.id == server.parent)
            && self.spans.len() == 2 + phases.len() + usize::from(self.client().is_some())
    }

    /// One of the phases.
    pub fn phase(&self, name: &str) -> Option<&ReceivedSpan> {
        self.phases().into_iter().find(|span| span.name == name)
    }

    /// The phase in which the request ended.
    pub fn last_phase(&self) -> Option<&str> {
        self.phases().last().map(|span| span.name.as_str())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes
        .into_iter()
        .filter_map(|pair| {
            let text = match pair.value?.value? {
                Value::StringValue(text) => text,
                Value::IntValue(number) => number.to_string(),
                Value::DoubleValue(number) => number.to_string(),
                Value::BoolValue(flag) => flag.to_string(),
                other => format!("{other:?}"),
            };
            Some((pair.key, text))
        })
        .collect()
}
