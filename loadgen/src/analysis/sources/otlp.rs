//! Spans in OTLP's JSON: one object or several, each a `TracesData` or one under `result`.
//!
//! Ids are hexadecimal there, other than protobuf's JSON has it; times and large numbers are strings. Only what
//! tells of a request is kept of a span.

use std::fmt;
use std::io::Read;

use anyhow::{Context as _, bail};
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::traces::{Marks, ParsedSpan, SpanFacts};

/// Reads all of `file`, and gives each span to `sink`; returns how many there were.
pub(super) fn read(file: impl Read, sink: &mut dyn FnMut(ParsedSpan<'_>)) -> anyhow::Result<u64> {
    let mut count = 0;
    for document in serde_json::Deserializer::from_reader(file).into_iter::<Document>() {
        let document = document.context("is not OTLP's JSON")?;
        if let Some(error) = document.error {
            bail!("is an error, not spans: {}", error.message.chars().take(300).collect::<String>());
        }
        for resource in document.result.unwrap_or_default().resource_spans.into_iter().chain(document.resource_spans) {
            let service = resource.resource.attributes.0.service;
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                count += 1;
                sink(ParsedSpan {
                    service: &service,
                    trace_id: &span.trace_id,
                    id: &span.span_id,
                    parent: &span.parent_span_id,
                    name: &span.name,
                    kind: span.kind.number(),
                    start: span.start_time_unix_nano.0,
                    end: span.end_time_unix_nano.0,
                    failed: span.status.code.is_error(),
                    facts: span.attributes.0,
                    marks: span.events.0,
                });
            }
        }
    }
    Ok(count)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    resource_spans: Vec<ResourceSpans>,
    #[serde(default)]
    result: Option<TracesData>,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TracesData {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resource {
    attributes: Folded<SpanFacts>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    #[serde(default)]
    spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    start_time_unix_nano: Nanos,
    #[serde(default)]
    end_time_unix_nano: Nanos,
    #[serde(default)]
    attributes: Folded<SpanFacts>,
    #[serde(default)]
    events: Folded<Marks>,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Kind,
}

/// An enum's value: its number, or its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kind {
    Number(i64),
    Name(String),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Kind {
    fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Name(name) => match name.as_str() {
                "SPAN_KIND_INTERNAL" => 1,
                "SPAN_KIND_SERVER" => 2,
                "SPAN_KIND_CLIENT" => 3,
                _ => 0,
            },
        }
    }

    fn is_error(&self) -> bool {
        match self {
            Self::Number(number) => *number == 2,
            Self::Name(name) => name == "STATUS_CODE_ERROR",
        }
    }
}

/// Nanoseconds since 1970, as a string or a number; 0 if it is neither.
#[derive(Default)]
struct Nanos(u64);

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Scalar::deserialize(deserializer)? {
            Scalar::Unsigned(number) => number,
            Scalar::Text(text) => text.parse().unwrap_or(0),
            _ => 0,
        }))
    }
}

/// A value of an attribute, as far as one is looked at.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Unsigned(u64),
    Float(f64),
    Text(String),
    Other(IgnoredAny),
}

impl Scalar {
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn float(&self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Other(_) => None,
        }
    }

    pub(super) fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Float(_) | Self::Other(_) => None,
        }
    }
}

/// What takes from the elements of a list what it needs, one by one, so that the list is never held.
pub(super) trait Fold: Default {
    type Element: de::DeserializeOwned;

    fn fold(&mut self, element: Self::Element);
}

#[derive(Default)]
struct Folded<T>(T);

impl<'de, T: Fold> Deserialize<'de> for Folded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfList<T>(T);

        impl<'de, T: Fold> Visitor<'de> for OfList<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<T, A::Error> {
                while let Some(element) = list.next_element()? {
                    self.0.fold(element);
                }
                Ok(self.0)
            }
        }

        deserializer.deserialize_seq(OfList(T::default())).map(Self)
    }
}

/// An attribute.
#[derive(Deserialize)]
pub(super) struct KeyValue {
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: AnyValue,
}

/// Its value, of the types that are looked at.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AnyValue {
    string_value: Option<Scalar>,
    int_value: Option<Scalar>,
    double_value: Option<Scalar>,
}

impl AnyValue {
    pub(super) fn scalar(self) -> Option<Scalar> {
        self.string_value.or(self.int_value).or(self.double_value)
    }
}

/// An event of a span.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    #[serde(default)]
    time_unix_nano: Nanos,
    #[serde(default)]
    pub(super) name: String,
}

impl Event {
    pub(super) fn at(&self) -> u64 {
        self.time_unix_nano.0
    }
}
