//! A span arrives as it was, whatever it holds.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry::{
    Array, InstrumentationScope, KeyValue, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanLinks},
};
use proptest::{collection::vec, prelude::*};

use super::received;
use crate::telemetry::{
    encode::{EncodedSpans, Origin},
    export::Envelope,
};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        "\\PC{0,200}".prop_map(Value::from),
        vec(any::<i64>(), 1..5).prop_map(|items| Value::Array(Array::I64(items))),
        vec(any::<bool>(), 1..5).prop_map(|items| Value::Array(Array::Bool(items))),
        vec(-1e9..1e9, 1..5).prop_map(|items| Value::Array(Array::F64(items))),
        vec("[a-z]{0,9}", 1..5)
            .prop_map(|items| Value::Array(Array::String(items.into_iter().map(Into::into).collect()))),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(("[a-z.]{1,30}", value()).prop_map(|(key, value)| KeyValue::new(key, value)), 0..8)
}

fn context() -> impl Strategy<Value = SpanContext> {
    (1..=u128::MAX, 1..=u64::MAX, any::<[bool; 2]>(), "([a-z]{1,9}=[a-z]{1,9})?").prop_map(
        |(trace, span, [sampled, is_remote], state)| {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let state = state.parse::<TraceState>().unwrap();
            SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, is_remote, state)
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Unset), Just(Status::Ok), "\\PC{0,20}".prop_map(Status::error)]
}

fn kind() -> impl Strategy<Value = SpanKind> {
    use SpanKind::{Client, Consumer, Internal, Producer, Server};
    prop_oneof![Just(Client), Just(Consumer), Just(Internal), Just(Producer), Just(Server)]
}

prop_compose! {
    fn span()(
        (own, parent, remote, kind) in (context(), any::<u64>(), any::<bool>(), kind()),
        (name, [start, end]) in ("\\PC{0,40}", any::<[u64; 2]>()),
        (attributes, status, dropped) in (attributes(), status(), any::<[u32; 3]>()),
        moments in vec((("[a-z]{0,9}", any::<u64>()), attributes()), 0..3),
        others in vec((context(), attributes()), 0..3),
    ) -> SpanData {
        let time = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        let [dropped_attributes_count, dropped_events, dropped_links] = dropped;
        let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
        let moments = moments.into_iter();
        events.events = moments.map(|((name, at), pairs)| Event::new(name, time(at), pairs, 0)).collect();
        events.dropped_count = dropped_events;
        links.links = others.into_iter().map(|(context, pairs)| Link::new(context, pairs, 0)).collect();
        links.dropped_count = dropped_links;
        // Whether a span's own context came from elsewhere is no part of it.
        let own = SpanContext::new(
            own.trace_id(), own.span_id(), own.trace_flags(), false, own.trace_state().clone(),
        );
        SpanData {
            span_context: own,
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: remote,
            span_kind: kind,
            name: name.into(),
            start_time: time(start),
            end_time: time(end),
            attributes,
            dropped_attributes_count,
            events,
            links,
            status,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }
}

proptest! {
    #[test]
    fn a_span_of_the_sdk_is_read_back(span in span()) {
        let (number, bytes) = EncodedSpans::of_sdk(&span).into_parts();
        prop_assert_eq!(number, 1);
        let message = Envelope::new(&Resource::builder().build()).enclose(&[(Origin::Gateway, Bytes::from(bytes))]);
        let read = futures::executor::block_on(received::spans(message));
        prop_assert_eq!(read, [span]);
    }
}
