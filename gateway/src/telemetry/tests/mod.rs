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
    export::{Counters, Limits, QueueProcessor},
    otlp::SendSpans,
    runtime::ExportThread,
    setup::{self, Parts},
};
use crate::config::TelemetryConfig;

mod accounting;
mod metrics;
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

impl SendSpans for ScriptedExporter {
    async fn send(&self, mut batch: Vec<SpanData>) -> Result<u64, String> {
        let refused = Err("refused".to_owned());
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(batch.len());
            calls.len()
        };
        match self.collector {
            Collector::Takes | Collector::RejectsOfEach(_) => {}
            Collector::TakesAfter(delay) => tokio::time::sleep(delay).await,
            Collector::Refuses => return refused,
            Collector::RefusesEverySecond if call.is_multiple_of(2) => return refused,
            Collector::RefusesEverySecond => {}
            Collector::Hangs => std::future::pending().await,
            Collector::Panics => panic!("an exporter's bug"),
        }
        let rejected = if let Collector::RejectsOfEach(number) = self.collector { number.min(batch.len()) } else { 0 };
        batch.truncate(batch.len() - rejected);
        self.taken.lock().unwrap().extend(batch);
        Ok(rejected as u64)
    }
}

const LIMITS: Limits =
    Limits { queue: 65_536, batch: 8_192, delay: Duration::from_millis(20), export_timeout: Duration::from_secs(10) };

/// A telemetry whose spans go to `exporter`.
fn telemetry(exporter: &ScriptedExporter, limits: Limits) -> Telemetry {
    configured(exporter, limits, &TelemetryConfig { capture_content: true, ..TelemetryConfig::default() })
}

fn configured(exporter: &ScriptedExporter, limits: Limits, config: &TelemetryConfig) -> Telemetry {
    let thread = ExportThread::start().unwrap();
    let counters = Arc::new(Counters::default());
    let queue = QueueProcessor::start(exporter.clone(), limits, Arc::clone(&counters), thread.handle());
    let registry = Registry::new();
    let resource = setup::resource(config);
    let parts = Parts {
        tracer_provider: SdkTracerProvider::builder().with_span_processor(queue).build(),
        meter_provider: setup::meter_provider(None, resource, &registry).unwrap(),
        registry,
        counters,
        exporting: true,
        _thread: Some(thread),
    };
    Telemetry::assemble(parts, config).unwrap()
}
