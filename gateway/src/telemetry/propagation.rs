//! The trace that a caller names, as W3C Trace Context has it: continued if what was sent is valid, else a new
//! one begins, and nobody is told off. Of W3C Baggage only what is asked for is kept.

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    baggage::BaggageExt,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// What the specification asks to be kept at least, and we keep at most.
const TRACESTATE_BYTES: usize = 512;
const TRACESTATE_ENTRIES: usize = 32;

/// The most of one entry of baggage that becomes an attribute.
const BAGGAGE_BYTES: usize = 256;

/// The context of the span that `headers` name, or an empty one.
pub(super) fn parent(headers: &HeaderMap) -> Context {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (named.next(), named.next()) else { return Context::new() };
    match parent.to_str() {
        Ok(parent) if is_well_formed(parent) => TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Inbound { parent, state: state(headers) }),
        _ => Context::new(),
    }
}

/// The entries of the caller's baggage under `keys`, each no longer than [`BAGGAGE_BYTES`].
pub(super) fn baggage(headers: &HeaderMap, keys: &[String]) -> Vec<KeyValue> {
    if keys.is_empty() {
        return Vec::new();
    }
    let context = BaggagePropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let entry = |key: &String| {
        let value = context.baggage().get(key)?.as_str();
        Some(KeyValue::new(key.clone(), value[..value.floor_char_boundary(BAGGAGE_BYTES)].to_owned()))
    };
    keys.iter().filter_map(entry).collect()
}

/// `VERSION-TRACE-SPAN-FLAGS` in lower case, which later versions may go on from; of version 0 it is all.
fn is_well_formed(parent: &str) -> bool {
    const LENGTHS: [usize; 4] = [2, 32, 16, 2];
    let mut parts = parent.split('-');
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let fits = LENGTHS.iter().all(|&length| parts.next().is_some_and(|part| part.len() == length && is_hex(part)));
    fits && !parent.starts_with("ff") && (parts.next().is_none() || !parent.starts_with("00"))
}

/// The vendors' lists joined, unless that is longer than one should be.
fn state(headers: &HeaderMap) -> Option<String> {
    let lists = headers.get_all(TRACESTATE).iter().map(|list| list.to_str().ok()).collect::<Option<Vec<_>>>()?;
    let state = lists.join(",");
    (state.len() <= TRACESTATE_BYTES && state.split(',').count() <= TRACESTATE_ENTRIES).then_some(state)
}

/// Headers that were checked.
struct Inbound<'a> {
    parent: &'a str,
    state: Option<String>,
}

impl Extractor for Inbound<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.parent),
            TRACESTATE => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}
