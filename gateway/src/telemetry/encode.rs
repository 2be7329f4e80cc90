//! Spans as OTLP has them on the wire, written once, when they end.
//!
//! A span exists in no other form from then on: what waits is bytes, whose number is what is bounded.
//! Fields are numbered in `opentelemetry/proto/trace/v1/trace.proto` and `common/v1/common.proto`.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::{
    Array, KeyValue, StringValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::protobuf::Message;

/// `ScopeSpans.spans`.
const SPANS: u32 = 2;

/// Bits of a span's flags that say whether its parent is remote, and that this is known.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// `STATUS_CODE_OK` and `STATUS_CODE_ERROR`.
const OK: u64 = 1;
const ERROR: u64 = 2;

/// Whose spans they are: each is a service of its own where traces are looked at, so that the steps of an engine do not
/// crowd out the requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// Requests, and what the gateway does besides.
    #[default]
    Gateway,
    /// Steps.
    Engine,
}

impl Origin {
    /// All.
    pub(super) const ALL: [Self; 2] = [Self::Gateway, Self::Engine];

    /// The instrumentation scope of its spans.
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Engine => "engine",
        }
    }
}

/// Spans that are sent, or dropped, together.
#[derive(Debug, Default)]
pub(super) struct EncodedSpans {
    message: Message,
    number: usize,
    origin: Origin,
}

/// What every span has.
#[derive(Debug)]
pub(super) struct SpanHead<'a> {
    /// The trace: a context of any of its spans.
    pub(super) trace: &'a SpanContext,
    pub(super) id: SpanId,
    pub(super) parent: Parent,
    /// Two words, the second of which may be empty.
    pub(super) name: (&'a str, &'a str),
    pub(super) kind: SpanKind,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// What a span is below of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent {
    /// Invalid for the first span of a trace.
    pub(super) id: SpanId,
    pub(super) is_remote: bool,
}

/// The rest of one span.
#[derive(Debug)]
pub(super) struct SpanWriter<'a> {
    message: &'a mut Message,
}

/// What can be the value of an attribute.
pub(super) trait AttributeValue {
    /// Writes an `AnyValue`.
    fn write(&self, any: &mut Message);
}

impl EncodedSpans {
    /// None yet, with room for the spans of a request.
    pub(super) fn of_request() -> Self {
        Self { message: Message::with_capacity(3 << 10), ..Self::default() }
    }

    /// A span that the SDK made, by itself.
    pub(super) fn of_sdk(span: &SpanData) -> Self {
        let scope = span.instrumentation_scope.name();
        let origin = Origin::ALL.into_iter().find(|origin| origin.scope() == scope).unwrap_or_default();
        let mut spans = Self { origin, ..Self::default() };
        let head = SpanHead {
            trace: &span.span_context,
            id: span.span_context.span_id(),
            parent: Parent { id: span.parent_span_id, is_remote: span.parent_span_is_remote },
            name: (&span.name, ""),
            kind: span.span_kind.clone(),
            start: span.start_time,
            end: span.end_time,
        };
        spans.add(&head, |writer| writer.sdk(span));
        spans
    }

    /// Adds a span.
    pub(super) fn add(&mut self, head: &SpanHead<'_>, describe: impl FnOnce(&mut SpanWriter<'_>)) {
        self.number += 1;
        self.message.message(SPANS, |message| {
            write_head(message, head);
            describe(&mut SpanWriter { message });
        });
    }

    /// Whose they are.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// How many there are, and their bytes.
    pub(super) fn into_parts(self) -> (usize, Vec<u8>) {
        (self.number, self.message.into_bytes())
    }
}

fn write_head(span: &mut Message, head: &SpanHead<'_>) {
    span.bytes(1, &head.trace.trace_id().to_bytes());
    span.bytes(2, &head.id.to_bytes());
    span.text(3, &head.trace.trace_state().header());
    if head.parent.id != SpanId::INVALID {
        span.bytes(4, &head.parent.id.to_bytes());
    }
    match head.name {
        (name, "") => span.text(5, name),
        (first, second) => span.words(5, [first, second]),
    }
    let kind = match head.kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    };
    span.number(6, kind);
    span.fixed64(7, nanos(head.start));
    span.fixed64(8, nanos(head.end));
    span.fixed32(16, flags(head.trace, head.parent.is_remote));
}

fn flags(context: &SpanContext, is_remote: bool) -> u32 {
    let remote = if is_remote { IS_REMOTE } else { 0 };
    u32::from(context.trace_flags().to_u8()) | KNOWS_REMOTE | remote
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes a `KeyValue`.
pub(super) fn write_attribute<V: AttributeValue + ?Sized>(message: &mut Message, field: u32, key: &str, value: &V) {
    message.message(field, |pair| {
        pair.bytes(1, key.as_bytes());
        pair.message(2, |any| value.write(any));
    });
}

impl SpanWriter<'_> {
    /// Adds an attribute.
    pub(super) fn attribute<V: AttributeValue + ?Sized>(&mut self, key: &str, value: &V) {
        write_attribute(self.message, 9, key, value);
    }

    /// Adds an attribute, if there is a value.
    pub(super) fn attribute_if<V: AttributeValue>(&mut self, key: &str, value: Option<V>) {
        if let Some(value) = value {
            self.attribute(key, &value);
        }
    }

    /// Says that something happened within the span.
    pub(super) fn event(&mut self, name: &str, at: SystemTime, attributes: &[KeyValue]) {
        self.message.message(11, |event| {
            event.fixed64(1, nanos(at));
            event.text(2, name);
            for pair in attributes {
                write_attribute(event, 3, pair.key.as_str(), &pair.value);
            }
        });
    }

    /// Points to a span of another trace.
    pub(super) fn link(&mut self, to: &SpanContext, attributes: &[KeyValue]) {
        self.message.message(13, |link| {
            link.bytes(1, &to.trace_id().to_bytes());
            link.bytes(2, &to.span_id().to_bytes());
            link.text(3, &to.trace_state().header());
            for pair in attributes {
                write_attribute(link, 4, pair.key.as_str(), &pair.value);
            }
            link.fixed32(6, flags(to, to.is_remote()));
        });
    }

    /// Marks what the span stands for as failed, and says why.
    pub(super) fn failed(&mut self, why: &str) {
        self.status(ERROR, why);
    }

    fn status(&mut self, code: u64, message: &str) {
        self.message.message(15, |status| {
            status.text(2, message);
            status.number(3, code);
        });
    }

    fn sdk(&mut self, span: &SpanData) {
        for pair in &span.attributes {
            self.attribute(pair.key.as_str(), &pair.value);
        }
        for event in span.events.iter() {
            self.event(&event.name, event.timestamp, &event.attributes);
        }
        for link in span.links.iter() {
            self.link(&link.span_context, &link.attributes);
        }
        let left_out =
            [(10, span.dropped_attributes_count), (12, span.events.dropped_count), (14, span.links.dropped_count)];
        for (field, number) in left_out.into_iter().filter(|(_, number)| *number > 0) {
            self.message.number(field, u64::from(number));
        }
        match &span.status {
            Status::Unset => {}
            Status::Ok => self.status(OK, ""),
            Status::Error { description } => self.status(ERROR, description),
        }
    }
}

impl AttributeValue for str {
    fn write(&self, any: &mut Message) {
        any.bytes(1, self.as_bytes());
    }
}

impl AttributeValue for &str {
    fn write(&self, any: &mut Message) {
        (**self).write(any);
    }
}

impl AttributeValue for StringValue {
    fn write(&self, any: &mut Message) {
        self.as_str().write(any);
    }
}

impl AttributeValue for bool {
    fn write(&self, any: &mut Message) {
        any.number(2, u64::from(*self));
    }
}

impl AttributeValue for i64 {
    fn write(&self, any: &mut Message) {
        any.number(3, self.cast_unsigned());
    }
}

impl AttributeValue for f64 {
    fn write(&self, any: &mut Message) {
        any.fixed64(4, self.to_bits());
    }
}

impl<V: AttributeValue> AttributeValue for [V] {
    fn write(&self, any: &mut Message) {
        any.message(5, |array| {
            for value in self {
                array.message(1, |any| value.write(any));
            }
        });
    }
}

impl AttributeValue for Value {
    fn write(&self, any: &mut Message) {
        match self {
            Self::Bool(flag) => flag.write(any),
            Self::I64(number) => number.write(any),
            Self::F64(number) => number.write(any),
            Self::String(text) => text.write(any),
            Self::Array(Array::Bool(items)) => items.as_slice().write(any),
            Self::Array(Array::I64(items)) => items.as_slice().write(any),
            Self::Array(Array::F64(items)) => items.as_slice().write(any),
            Self::Array(Array::String(items)) => items.as_slice().write(any),
            // The API may grow kinds of values: they are absent rather than wrong.
            _ => {}
        }
    }
}
