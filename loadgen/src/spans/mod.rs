//! One CLIENT span per request, with the span id that was sent: what the server's span is the child of.
//!
//! - [`client_span`]: record → span;
//! - `export`: spans → collector, on a thread of their own.
//!
//! Built of finished records, so that nothing here happens while a request is measured.

mod export;

use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use url::Url;

use crate::record::{Epoch, RequestRecord};

pub use export::{Exporter, SpanCounts};

/// What all spans of a run share.
#[derive(Debug, Clone)]
pub struct Run {
    /// The zero of its times.
    pub epoch: Epoch,
    /// Concurrent users.
    pub users: u32,
    /// The server, without a slash at its end.
    pub host: String,
}

/// The span of `record`; none when it carries no usable ids.
pub fn client_span(record: &RequestRecord, run: &Run) -> Option<SpanData> {
    let trace_id = TraceId::from_hex(&record.trace_id).ok()?;
    let span_id = SpanId::from_hex(&record.span_id).ok()?;
    let mut events = SpanEvents::default();
    events.events = events_of(record, run.epoch);
    Some(SpanData {
        span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Client,
        name: "POST /generate".into(),
        start_time: run.epoch.wall(record.sent_us),
        end_time: run.epoch.wall(record.end_us),
        attributes: attributes(record, run),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: match &record.error {
            Some(failure) => Status::error(format!("{}: {}", failure.class, failure.message)),
            None => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("loadgen").with_version(env!("CARGO_PKG_VERSION")).build(),
    })
}

fn events_of(record: &RequestRecord, epoch: Epoch) -> Vec<Event> {
    let last = record.chunks.last().map(|chunk| chunk.at_us);
    [("headers", record.headers_us), ("first_content", record.first_content_us()), ("last_content", last)]
        .into_iter()
        .filter_map(|(name, at)| Some(Event::new(name, epoch.wall(at?), Vec::new(), 0)))
        .collect()
}

fn attributes(record: &RequestRecord, run: &Run) -> Vec<KeyValue> {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("url.full", format!("{}/generate", run.host)),
        KeyValue::new("loadgen.scheduled_ms", record.send_delay().as_micros() as f64 / 1e3),
        KeyValue::new("loadgen.user", i64::try_from(record.user).unwrap_or(i64::MAX)),
        KeyValue::new("loadgen.users", i64::from(run.users)),
    ];
    if let Some(url) = Url::parse(&run.host).ok().filter(Url::has_host) {
        let address = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        attributes.push(KeyValue::new("server.address", address));
        attributes.extend(url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    if let Some(status) = record.status {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if let Some(failure) = &record.error {
        attributes.push(KeyValue::new("error.type", failure.class.to_string()));
    }
    // Names of our own: `gen_ai.*` here would make pages count the server's tokens once more.
    if let Some(usage) = record.usage {
        attributes.push(KeyValue::new("loadgen.input_tokens", count(usage.prompt_tokens)));
        attributes.push(KeyValue::new("loadgen.output_tokens", count(usage.completion_tokens)));
        attributes.push(KeyValue::new("loadgen.cached_tokens", count(usage.cached_tokens)));
    }
    attributes
}
