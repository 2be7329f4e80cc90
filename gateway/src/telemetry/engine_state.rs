//! Gauges and counters of the engine that are read at each scrape: what it holds, and how near it is to its limits.

use std::sync::{Arc, OnceLock};

use engine::{DeviceMemory, Engine, EngineStats, MachineLimits};
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use super::utilization::{RecentSteps, Utilization};

/// The engine that is read.
pub(super) struct WatchedEngine {
    pub(super) facts: EngineFacts,
    pub(super) stats: Box<dyn Fn() -> EngineStats + Send + Sync>,
    /// A GPU's memory.
    pub(super) memory: Box<dyn Fn() -> Option<DeviceMemory> + Send + Sync>,
}

/// What stays the same as long as it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct EngineFacts {
    pub(super) limits: Option<MachineLimits>,
    pub(super) max_batch: usize,
    pub(super) max_step_tokens: usize,
    /// Bytes of weights, and of the KV cache.
    pub(super) model_bytes: u64,
    pub(super) kv_bytes: u64,
}

impl WatchedEngine {
    pub(super) fn new(engine: Engine) -> Self {
        let (model, config) = (engine.model(), engine.config());
        let facts = EngineFacts {
            limits: model.limits,
            max_batch: config.max_batch,
            max_step_tokens: config.step_tokens(),
            model_bytes: model.weight_bytes,
            kv_bytes: model.kv_bytes,
        };
        let watched = engine.clone();
        Self { facts, stats: Box::new(move || engine.stats()), memory: Box::new(move || watched.device_memory()) }
    }
}

/// A name, what it is, its unit.
type Described = (&'static str, &'static str, &'static str);

/// Registers instruments that show nothing until there is an engine.
struct Instruments<'a> {
    meter: &'a Meter,
    engine: Arc<OnceLock<WatchedEngine>>,
}

/// Registers all of them.
pub(super) fn register(meter: &Meter, engine: &Arc<OnceLock<WatchedEngine>>, recent: &Arc<RecentSteps>) {
    let instruments = Instruments { meter, engine: Arc::clone(engine) };
    instruments.holdings();
    instruments.device();
    instruments.limits();
    instruments.utilization(recent);
    instruments.counters();
}

impl Instruments<'_> {
    fn holdings(&self) {
        self.gauge(("engine.kv.usage", "Share of the KV blocks in use", "1"), |engine| {
            let stats = (engine.stats)();
            (stats.kv_blocks_total > 0).then(|| stats.kv_blocks_used as f64 / stats.kv_blocks_total as f64)
        });
        self.states(("engine.kv.blocks", "KV blocks by state", "{block}"), |engine| {
            let stats = (engine.stats)();
            let free = stats.kv_blocks_total.saturating_sub(stats.kv_blocks_used);
            [("used", stats.kv_blocks_used as u64), ("free", free as u64)]
        });
        self.states(("engine.kv.memory", "Bytes of the KV cache by state", "By"), |engine| {
            let stats = (engine.stats)();
            let used = engine.facts.kv_bytes / (stats.kv_blocks_total as u64).max(1) * stats.kv_blocks_used as u64;
            [("used", used), ("free", engine.facts.kv_bytes.saturating_sub(used))]
        });
        self.states(("engine.sequences", "Requests in the engine by state", "{sequence}"), |engine| {
            let stats = (engine.stats)();
            [("waiting", stats.waiting as u64), ("running", stats.running as u64)]
        });
        self.gauge(("engine.model.memory", "Bytes of the weights as they are computed with", "By"), |engine| {
            Some(engine.facts.model_bytes as f64)
        });
    }

    /// Of a GPU, by the names of OpenTelemetry's conventions for hardware.
    fn device(&self) {
        let read = |of: fn(DeviceMemory) -> f64| move |engine: &WatchedEngine| (engine.memory)().map(of);
        let usage = "Bytes of the GPU's memory in use, by whomever";
        self.gauge(("hw.gpu.memory.usage", usage, "By"), read(|memory| memory.used as f64));
        let limit = "Bytes of memory that the GPU has";
        self.gauge(("hw.gpu.memory.limit", limit, "By"), read(|memory| memory.total as f64));
        let utilization = "Share of the GPU's memory in use, by whomever";
        self.gauge(
            ("hw.gpu.memory.utilization", utilization, "1"),
            read(|memory| memory.used as f64 / memory.total.max(1) as f64),
        );
    }

    fn limits(&self) {
        self.gauge(
            ("engine.batch.limit", "The most sequences computed together in one step", "{sequence}"),
            |engine| Some(engine.facts.max_batch as f64),
        );
        self.gauge(("engine.step.token_limit", "The most tokens computed in one step", "{token}"), |engine| {
            Some(engine.facts.max_step_tokens as f64)
        });
        let bandwidth =
            "Bytes per second that the engine's threads, or the GPU, can read from memory, measured at start";
        self.gauge(("engine.memory_bandwidth.limit", bandwidth, "By/s"), |engine| {
            Some(engine.facts.limits?.bytes_per_second)
        });
        let compute = "Operations per second, two to a multiply-add, that the engine's threads can do in the \
                       arithmetic of the model's weights (8-bit for quantised ones, else bf16 or f32), or the GPU's \
                       matrix units in that of its rows, measured at start";
        self.gauge(("engine.compute.limit", compute, "{operation}/s"), |engine| {
            Some(engine.facts.limits?.operations_per_second)
        });
    }

    fn utilization(&self, recent: &Arc<RecentSteps>) {
        let share = |described, of: fn(Utilization) -> f64| {
            let recent = Arc::clone(recent);
            self.gauge(described, move |engine| recent.utilization(engine.facts.limits?).map(of));
        };
        let bandwidth = "Bytes that steps had to move, by the time of their forwards or what a GPU says it computed \
                         for, as a share of engine.memory_bandwidth.limit; over the last second or so of computing, \
                         so it stays where it was while the engine is idle; above 1 where weights are read from a cache";
        share(("engine.memory_bandwidth.utilization", bandwidth, "1"), |utilization| utilization.memory_bandwidth);
        let compute = "Operations of the linear layers, by the same time, as a share of engine.compute.limit; over \
                       the last second or so of computing";
        share(("engine.compute.utilization", compute, "1"), |utilization| utilization.compute);
    }

    fn counters(&self) {
        self.counter(("engine.preemptions", "Sequences evicted to be recomputed", "{sequence}"), |stats| {
            stats.preemptions
        });
        let lookups = "Prompt tokens looked for in the prefix cache";
        self.counter(("engine.prefix_cache.lookups", lookups, "{token}"), |stats| stats.prefix_cache_lookups);
        let hits = "Prompt tokens found in the prefix cache";
        self.counter(("engine.prefix_cache.hits", hits, "{token}"), |stats| stats.prefix_cache_hits);
        let engine = Arc::clone(&self.engine);
        self.meter
            .u64_observable_counter("engine.speculative.tokens")
            .with_description("Tokens that answers were guessed to go on with, and those of them that they did")
            .with_unit("{token}")
            .with_callback(move |counter| {
                let Some(stats) = engine.get().map(|engine| (engine.stats)()) else { return };
                let (proposed, accepted) = (stats.speculative_proposed, stats.speculative_accepted);
                for (outcome, count) in [("proposed", proposed), ("accepted", accepted)] {
                    counter.observe(count, &[KeyValue::new("outcome", outcome)]);
                }
            })
            .build();
    }

    fn gauge(
        &self,
        (name, description, unit): Described,
        read: impl Fn(&WatchedEngine) -> Option<f64> + Send + Sync + 'static,
    ) {
        let engine = Arc::clone(&self.engine);
        let observe = move |gauge: &dyn AsyncInstrument<f64>| {
            if let Some(value) = engine.get().and_then(&read) {
                gauge.observe(value, &[]);
            }
        };
        let builder = self.meter.f64_observable_gauge(name).with_description(description).with_unit(unit);
        builder.with_callback(observe).build();
    }

    /// A gauge with one series per state.
    fn states(&self, (name, description, unit): Described, read: fn(&WatchedEngine) -> [(&'static str, u64); 2]) {
        let engine = Arc::clone(&self.engine);
        let observe = move |gauge: &dyn AsyncInstrument<u64>| {
            for (state, number) in engine.get().map(read).into_iter().flatten() {
                gauge.observe(number, &[KeyValue::new("state", state)]);
            }
        };
        let builder = self.meter.u64_observable_gauge(name).with_description(description).with_unit(unit);
        builder.with_callback(observe).build();
    }

    fn counter(&self, (name, description, unit): Described, read: fn(&EngineStats) -> u64) {
        let engine = Arc::clone(&self.engine);
        let observe = move |counter: &dyn AsyncInstrument<u64>| {
            if let Some(engine) = engine.get() {
                counter.observe(read(&(engine.stats)()), &[]);
            }
        };
        let builder = self.meter.u64_observable_counter(name).with_description(description).with_unit(unit);
        builder.with_callback(observe).build();
    }
}
