//! Telemetry by itself: synthetic requests in, spans at a scripted exporter and metrics as text out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use prometheus::Registry;

use super::{
    Telemetry,
    export::{Envelope, ExportMessage, Limits, QueueProcessor, Refusal, Retry, SpanQueue, Taken, Transport},
    runtime::ExportThread,
    setup::{self, Parts},
};
use crate::config::TelemetryConfig;

mod accounting;
mod critical_path;
mod encoding;
mod metrics;
mod received;
mod steps;
mod trees;

/// What the exporter does with each batch.
#[derive(Debug, Clone, Copy)]
enum Collector {
    Takes,
    TakesAfter(Duration),
    Refuses,
    RefusesEverySecond,
    RejectsOfEach(usize),
    Hangs,
    Panics,
}

#[derive(Debug, Clone)]
struct ScriptedExporter {
    collector: Collector,
    /// Spans in each call.
    calls: Arc<Mutex<Vec<usize>>>,
    taken: Arc<Mutex<Vec<SpanData>>>,
}

impl ScriptedExporter {
    fn new(collector: Collector) -> Self {
        Self { collector, calls: Arc::default(), taken: Arc::default() }
    }

    fn taken(&self) -> Vec<SpanData> {
        self.taken.lock().unwrap().clone()
    }
}

impl Transport for ScriptedExporter {
    async fn send(&self, message: ExportMessage) -> Result<Taken, Refusal> {
        let spans = received::spans(message).await;
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(spans.len());
            calls.len()
        };
        let mut taken = Taken::default();
        match self.collector {
            Collector::Takes => {}
            Collector::RejectsOfEach(number) => taken.rejected = number.min(spans.len()) as u64,
            Collector::TakesAfter(delay) => tokio::time::sleep(delay).await,
            Collector::Refuses => return Err(Refusal::new("refused", Retry::Never)),
            Collector::RefusesEverySecond if call.is_multiple_of(2) => {
                return Err(Refusal::new("refused", Retry::Never));
            }
            Collector::RefusesEverySecond => {}
            Collector::Hangs => std::future::pending().await,
            Collector::Panics => panic!("a transport's bug"),
        }
        self.taken.lock().unwrap().extend(spans.into_iter().skip(taken.rejected as usize));
        Ok(taken)
    }
}

pub(super) const LIMITS: Limits = Limits {
    queue: 65_536,
    queue_bytes: 64 << 20,
    batch: 8_192,
    delay: Duration::from_millis(20),
    attempt_timeout: Duration::from_secs(10),
    export_timeout: Duration::from_secs(10),
};

/// A telemetry whose spans go to `exporter`.
fn telemetry(exporter: &ScriptedExporter, limits: Limits) -> Telemetry {
    configured(exporter, limits, &TelemetryConfig { capture_content: true, ..TelemetryConfig::default() })
}

fn configured(exporter: &ScriptedExporter, limits: Limits, config: &TelemetryConfig) -> Telemetry {
    let thread = ExportThread::start().unwrap();
    let resource = setup::resource(config, None);
    let queue = Arc::new(SpanQueue::new(limits));
    let processor =
        QueueProcessor::start(exporter.clone(), Envelope::new(&resource), Arc::clone(&queue), thread.handle());
    let registry = Registry::new();
    let parts = Parts {
        tracer_provider: SdkTracerProvider::builder().with_span_processor(processor).build(),
        ids: setup::ids(config),
        meter_provider: setup::meter_provider(None, resource, &registry).unwrap(),
        registry,
        queue,
        exporting: true,
        _thread: Some(thread),
    };
    Telemetry::assemble(parts, config).unwrap()
}
