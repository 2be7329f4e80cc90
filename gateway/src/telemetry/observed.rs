//! Gauges and counters read at each scrape: the process's memory, spans.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::{export::Counters, process};

/// Registers all of them.
pub(super) fn register(meter: &Meter, spans: Arc<Counters>) {
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
    meter
        .u64_observable_counter("gateway.telemetry.spans")
        .with_description("Spans by what became of them")
        .with_unit("{span}")
        .with_callback(move |counter| {
            let counts = spans.read();
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
