//! Gauges and counters read at each scrape: what the engine holds, the process's memory, spans.

use std::sync::Arc;

use engine::EngineStats;
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use super::{export::SpanQueue, process};

/// Registers all of them; `engine` gives nothing until there is one.
pub(super) fn register(
    meter: &Meter,
    engine: impl Fn() -> Option<EngineStats> + Send + Sync + 'static,
    spans: Arc<SpanQueue>,
) {
    register_engine(meter, Arc::new(engine));
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

fn register_engine(meter: &Meter, engine: Arc<dyn Fn() -> Option<EngineStats> + Send + Sync>) {
    let read = Arc::clone(&engine);
    meter
        .f64_observable_gauge("engine.kv.usage")
        .with_description("Share of the KV blocks in use")
        .with_unit("1")
        .with_callback(move |gauge| {
            if let Some(stats) = read().filter(|stats| stats.kv_blocks_total > 0) {
                gauge.observe(stats.kv_blocks_used as f64 / stats.kv_blocks_total as f64, &[]);
            }
        })
        .build();
    let read = Arc::clone(&engine);
    let blocks = move || {
        let stats = read()?;
        Some([("used", stats.kv_blocks_used), ("free", stats.kv_blocks_total.saturating_sub(stats.kv_blocks_used))])
    };
    register_states(meter, ("engine.kv.blocks", "KV blocks by state", "{block}"), blocks);
    let read = Arc::clone(&engine);
    let sequences = move || read().map(|stats| [("waiting", stats.waiting), ("running", stats.running)]);
    register_states(meter, ("engine.sequences", "Requests in the engine by state", "{sequence}"), sequences);
    register_engine_counters(meter, engine);
}

fn register_engine_counters(meter: &Meter, engine: Arc<dyn Fn() -> Option<EngineStats> + Send + Sync>) {
    let count = |name: &'static str, description: &'static str, unit: &'static str, of: fn(&EngineStats) -> u64| {
        let read = Arc::clone(&engine);
        let observe = move |counter: &dyn AsyncInstrument<u64>| {
            if let Some(stats) = read() {
                counter.observe(of(&stats), &[]);
            }
        };
        let builder = meter.u64_observable_counter(name).with_description(description).with_unit(unit);
        builder.with_callback(observe).build();
    };
    count("engine.preemptions", "Sequences evicted to be recomputed", "{sequence}", |stats| stats.preemptions);
    count("engine.prefix_cache.lookups", "Prompt tokens looked for in the prefix cache", "{token}", |stats| {
        stats.prefix_cache_lookups
    });
    count("engine.prefix_cache.hits", "Prompt tokens found in the prefix cache", "{token}", |stats| {
        stats.prefix_cache_hits
    });
    meter
        .u64_observable_counter("engine.speculative.tokens")
        .with_description("Tokens that answers were guessed to go on with, and those of them that they did")
        .with_unit("{token}")
        .with_callback(move |counter| {
            let Some(stats) = engine() else { return };
            for (outcome, count) in [("proposed", stats.speculative_proposed), ("accepted", stats.speculative_accepted)]
            {
                counter.observe(count, &[KeyValue::new("outcome", outcome)]);
            }
        })
        .build();
}

/// A gauge with one series per state.
fn register_states(
    meter: &Meter,
    (name, description, unit): (&'static str, &'static str, &'static str),
    read: impl Fn() -> Option<[(&'static str, usize); 2]> + Send + Sync + 'static,
) {
    meter
        .u64_observable_gauge(name)
        .with_description(description)
        .with_unit(unit)
        .with_callback(move |gauge| {
            for (state, number) in read().into_iter().flatten() {
                gauge.observe(number as u64, &[KeyValue::new("state", state)]);
            }
        })
        .build();
}
