//! Gauges and counters read at each scrape: the process's memory, spans.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::{export::SpanQueue, process};

/// Registers all of them.
pub(super) fn register(meter: &Meter, spans: Arc<SpanQueue>) {
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_description("Resident memory of the process")
        .with_unit("By")
        .with_callback(|gauge| {
            if let Some(bytes) = process::resident_bytes() {
                gauge.observe(bytes, &[]);
            }
        })
        .build();
    register_spans(meter, spans);
}

fn register_spans(meter: &Meter, queue: Arc<SpanQueue>) {
    let held = Arc::clone(&queue);
    meter
        .u64_observable_gauge("gateway.telemetry.queue")
        .with_description("Spans that wait for the collector or are on their way to it")
        .with_unit("{span}")
        .with_callback(move |gauge| gauge.observe(held.counts().held(), &[]))
        .build();
    let held = Arc::clone(&queue);
    meter
        .u64_observable_gauge("gateway.telemetry.queue.memory")
        .with_description("Memory of the spans that wait or are on their way")
        .with_unit("By")
        .with_callback(move |gauge| gauge.observe(held.held_bytes() as u64, &[]))
        .build();
    meter
        .u64_observable_counter("gateway.telemetry.spans")
        .with_description("Spans by what became of them")
        .with_unit("{span}")
        .with_callback(move |counter| {
            let counts = queue.counts();
            for (outcome, count) in [
                ("created", counts.created),
                ("exported", counts.exported),
                ("dropped", counts.dropped),
                ("failed", counts.failed),
            ] {
                counter.observe(count, &[KeyValue::new("outcome", outcome)]);
            }
        })
        .build();
}
