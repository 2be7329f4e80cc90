//! Spans on their way to an OTLP collector: a bounded queue, and a thread that drains it.
//!
//! Offering a span never waits: it is queued, or dropped and counted. A collector that is slow or gone costs
//! spans, never a measurement, and the end of a run waits for it only so long. Every span offered is in the
//! end exported, dropped or failed.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

/// Spans waiting at most: with some 2 kB each, bounded memory.
const QUEUE: usize = 16_384;

/// Spans of one export: collectors refuse a gRPC message of more than 4 MiB by default.
const BATCH: usize = 1024;

/// How long spans are gathered for one export.
const GATHER: Duration = Duration::from_millis(500);

/// The longest that one export may take, with its retries.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a run waits for what is queued.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// The machine's (or container's) name.
const HOST_NAME: Key = Key::from_static_str("host.name");

/// What became of the spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SpanCounts {
    /// One per request.
    pub created: u64,
    /// Accepted by the collector.
    pub exported: u64,
    /// Not sent, or not answered when the run was over.
    pub dropped: u64,
    /// Sent, but refused or not answered in time.
    pub failed: u64,
}

/// What the thread has done.
#[derive(Debug, Clone, Copy, Default)]
struct Settled {
    exported: u64,
    failed: u64,
}

/// Where finished requests leave their spans.
#[derive(Debug)]
pub struct Exporter {
    queue: mpsc::Sender<SpanData>,
    created: u64,
    thread: JoinHandle<Settled>,
    /// Dropped to say that no more spans come and that time runs.
    ending: oneshot::Sender<()>,
}

impl Exporter {
    /// Starts one if a collector is named by OpenTelemetry's variables, which `variable` reads.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let Some(protocol) = protocol(variable)? else { return Ok(None) };
        // The exporter lives on a runtime of its own: none of the users waits for it.
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the span exporter")?;
        let entered = runtime.enter();
        let mut exporter = span_exporter(protocol).context("cannot export spans")?;
        drop(entered);
        exporter.set_resource(&resource());
        let (queue, queued) = mpsc::channel(QUEUE);
        let (ending, ended) = oneshot::channel();
        let drain = move || {
            let mut settled = Settled::default();
            runtime.block_on(async {
                let out_of_time = async {
                    let _ = ended.await;
                    tokio::time::sleep(FLUSH_TIMEOUT).await;
                };
                tokio::select! {
                    () = drain(exporter, queued, &mut settled) => {}
                    () = out_of_time => {}
                }
            });
            settled
        };
        let thread = std::thread::Builder::new().name("spans".into()).spawn(drain);
        let thread = thread.context("cannot start the span exporter")?;
        Ok(Some(Self { queue, created: 0, thread, ending }))
    }

    /// Hands a span over.
    pub fn offer(&mut self, span: SpanData) {
        self.created += 1;
        // What finds no place is what is missing among the settled ones in the end.
        let _ = self.queue.try_send(span);
    }

    /// Waits for the last export, so long and no longer, and says what became of all spans.
    pub fn finish(self) -> SpanCounts {
        let Self { queue, created, thread, ending } = self;
        drop((queue, ending));
        let Settled { exported, failed } = thread.join().unwrap_or_default();
        SpanCounts { created, exported, dropped: created.saturating_sub(exported + failed), failed }
    }
}

/// Exports until the queue is closed and empty.
async fn drain(exporter: SpanExporter, mut queued: mpsc::Receiver<SpanData>, settled: &mut Settled) {
    let mut open = true;
    while open {
        let mut batch = Vec::new();
        let until = Instant::now() + GATHER;
        while open && batch.len() < BATCH {
            let free = BATCH - batch.len();
            match timeout_at(until, queued.recv_many(&mut batch, free)).await {
                Ok(received) => open = received > 0,
                Err(_) => break,
            }
        }
        if batch.is_empty() {
            continue;
        }
        let spans = batch.len() as u64;
        match timeout(EXPORT_TIMEOUT, exporter.export(batch)).await {
            Ok(Ok(())) => settled.exported += spans,
            Ok(Err(_)) | Err(_) => settled.failed += spans,
        }
    }
}

/// How to speak to the collector; none when no collector is named or exports are turned off.
fn protocol(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Protocol>> {
    let read = |name: &str| variable(name).filter(|value| !value.is_empty());
    let is = |name: &str, wanted: &str| read(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted));
    let endpoint = read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| read("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let Some(endpoint) = endpoint else { return Ok(None) };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match read(name).as_deref() {
            None => {}
            Some("grpc") => return Ok(Some(Protocol::Grpc)),
            Some("http/protobuf") => return Ok(Some(Protocol::HttpBinary)),
            Some(other) => bail!("{name}: {other:?} is neither grpc nor http/protobuf"),
        }
    }
    let grpc = Url::parse(&endpoint).is_ok_and(|url| url.port() == Some(4317));
    Ok(Some(if grpc { Protocol::Grpc } else { Protocol::HttpBinary }))
}

/// Endpoint, headers and time-out are read from their variables by the exporter itself.
fn span_exporter(protocol: Protocol) -> anyhow::Result<SpanExporter> {
    if protocol == Protocol::Grpc {
        return Ok(SpanExporter::builder().with_tonic().build()?);
    }
    // Asynchronous: the exporter's own choice blocks the thread it runs on.
    let client = reqwest::Client::builder().build()?;
    Ok(SpanExporter::builder().with_http().with_protocol(protocol).with_http_client(client).build()?)
}

/// `loadgen`, unless the environment says otherwise.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let name = detected.get(&Key::new("service.name")).map(|name| name.to_string());
    let name = name.filter(|name| !name.starts_with("unknown_service")).unwrap_or_else(|| "loadgen".into());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    // As the gateway does: without it a page that compares clocks takes one machine for two.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim().to_owned()).filter(|host| !host.is_empty() && detected.get(&HOST_NAME).is_none());
    let host = host.map(|host| KeyValue::new(HOST_NAME, host));
    Resource::builder().with_attribute(version).with_attributes(host).with_service_name(name).build()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    type Variables = [(&'static str, &'static str)];

    fn chosen(variables: &Variables) -> anyhow::Result<Option<Protocol>> {
        protocol(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn spans_go_where_the_variables_say() {
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let table: [(&Variables, Option<Protocol>); 8] = [
            (&[], None),
            (&[(BASE, "")], None),
            (&[(BASE, "http://c:4318")], Some(Protocol::HttpBinary)),
            (&[(BASE, "http://c:4317")], Some(Protocol::Grpc)),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317"), (BASE, "http://d:9")], Some(Protocol::Grpc)),
            (&[(BASE, "http://c:9"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], Some(Protocol::Grpc)),
            (&[(BASE, "http://c:9"), ("OTEL_TRACES_EXPORTER", "none")], None),
            (&[(BASE, "http://c:9"), ("OTEL_SDK_DISABLED", "TRUE")], None),
        ];
        for (variables, expected) in table {
            assert_eq!(chosen(variables).unwrap(), expected, "{variables:?}");
        }
        let refused = chosen(&[(BASE, "http://c:9"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).unwrap_err();
        assert!(refused.to_string().contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{refused}");
    }
}
