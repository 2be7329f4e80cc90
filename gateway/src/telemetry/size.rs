//! About how many bytes a span takes on the wire: enough to keep an export below a collector's limit.

use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// Ids, times, kind, status and the framing of a span.
const SPAN: usize = 96;

/// Framing of one key with its value, and the widest number.
const PAIR: usize = 16;

/// Bytes of `span` in protobuf, rather more than fewer.
pub(super) fn encoded_size(span: &SpanData) -> usize {
    let events = span.events.iter().map(|event| PAIR + event.name.len() + attributes(&event.attributes));
    let links = span.links.iter().map(|link| SPAN + attributes(&link.attributes));
    SPAN + span.name.len() + attributes(&span.attributes) + events.sum::<usize>() + links.sum::<usize>()
}

fn attributes(pairs: &[KeyValue]) -> usize {
    pairs.iter().map(|pair| PAIR + pair.key.as_str().len() + text(&pair.value)).sum()
}

fn text(value: &Value) -> usize {
    match value {
        Value::String(text) => text.as_str().len(),
        Value::Array(Array::String(texts)) => texts.iter().map(|text| PAIR + text.as_str().len()).sum(),
        Value::Array(Array::Bool(items)) => PAIR * items.len(),
        Value::Array(Array::I64(items)) => PAIR * items.len(),
        Value::Array(Array::F64(items)) => PAIR * items.len(),
        _ => 0,
    }
}
