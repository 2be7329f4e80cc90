//! A span as it was received, in the SDK's words: what tests look at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, TraceFlags, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceId, TraceState},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{self as common, any_value},
    trace::v1::{self as trace, span::SpanKind as Kind},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prost::Message;

use crate::telemetry::export::ExportMessage;

/// The spans of a message, as a collector reads them.
pub(super) async fn spans(message: ExportMessage) -> Vec<SpanData> {
    let bytes = http_body_util::BodyExt::collect(message).await.unwrap().to_bytes();
    let request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(span).collect()
}

fn span(span: trace::Span) -> SpanData {
    let mut events = SpanEvents::default();
    events.dropped_count = span.dropped_events_count;
    events.events = span
        .events
        .into_iter()
        .map(|event| Event::new(event.name, time(event.time_unix_nano), pairs(event.attributes), 0))
        .collect();
    let mut links = SpanLinks::default();
    links.dropped_count = span.dropped_links_count;
    links.links = span
        .links
        .into_iter()
        .map(|link| {
            let context = context((&link.trace_id, &link.span_id), link.flags, &link.trace_state);
            Link::new(context, pairs(link.attributes), 0)
        })
        .collect();
    let status = span.status.unwrap_or_default();
    SpanData {
        span_context: context((&span.trace_id, &span.span_id), span.flags & 0xff, &span.trace_state),
        parent_span_id: SpanId::from_bytes(span.parent_span_id.try_into().unwrap_or_default()),
        parent_span_is_remote: span.flags & 0x200 != 0,
        span_kind: match Kind::try_from(span.kind).unwrap() {
            Kind::Unspecified => panic!("a span without a kind"),
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: span.name.into(),
        start_time: time(span.start_time_unix_nano),
        end_time: time(span.end_time_unix_nano),
        attributes: pairs(span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events,
        links,
        status: match status.code {
            0 => Status::Unset,
            1 => Status::Ok,
            _ => Status::error(status.message),
        },
        instrumentation_scope: InstrumentationScope::default(),
    }
}

fn context((trace, span): (&[u8], &[u8]), flags: u32, state: &str) -> SpanContext {
    let trace = TraceId::from_bytes(trace.try_into().unwrap());
    let span = SpanId::from_bytes(span.try_into().unwrap());
    let flags_of_trace = TraceFlags::new(flags as u8);
    SpanContext::new(trace, span, flags_of_trace, flags & 0x200 != 0, state.parse::<TraceState>().unwrap())
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn pairs(pairs: Vec<common::KeyValue>) -> Vec<KeyValue> {
    pairs.into_iter().map(|pair| KeyValue::new(pair.key, value(pair.value.unwrap()))).collect()
}

fn value(any: common::AnyValue) -> Value {
    match any.value.unwrap() {
        any_value::Value::StringValue(text) => text.into(),
        any_value::Value::BoolValue(flag) => flag.into(),
        any_value::Value::IntValue(number) => number.into(),
        any_value::Value::DoubleValue(number) => number.into(),
        any_value::Value::ArrayValue(array) => Value::Array(items(array.values.into_iter().map(value).collect())),
        other => panic!("nothing here has a value like {other:?}"),
    }
}

fn items(values: Vec<Value>) -> Array {
    match values.first() {
        Some(Value::Bool(_)) => Array::Bool(values.iter().map(|value| matches!(value, Value::Bool(true))).collect()),
        Some(Value::I64(_)) => Array::I64(values.iter().map(|value| value.as_str().parse().unwrap()).collect()),
        Some(Value::F64(_)) => Array::F64(values.iter().map(|value| value.as_str().parse().unwrap()).collect()),
        _ => Array::String(values.into_iter().map(|value| StringValue::from(value.to_string())).collect()),
    }
}
