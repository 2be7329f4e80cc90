//! What the server says of itself over a run, read from its `/metrics`.
//!
//! Every fact is absent where the server does not publish what it needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Metrics;

/// The server's inside over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerFacts {
    /// Sequences that one step may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_limit: Option<f64>,
    /// Sequences per step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_mean: Option<f64>,
    /// Time per step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_mean_ms: Option<f64>,
    /// Tokens that one step may compute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_token_limit: Option<f64>,
    /// Prompt tokens computed per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_tokens_per_s: Option<f64>,
    /// Answer tokens computed per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_tokens_per_s: Option<f64>,
    /// Part of the step time spent planning, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_share: Option<f64>,
    /// Part of the step time spent sampling, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_share: Option<f64>,
    /// Memory traffic of the steps over what the machine can, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bandwidth_utilization: Option<f64>,
    /// Arithmetic of the steps over what the machine can, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_utilization: Option<f64>,
    /// KV cache in use, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_usage_mean: Option<f64>,
    /// The most of it seen in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_usage_max: Option<f64>,
    /// Requests waiting for a place in the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_mean: Option<f64>,
    /// The most seen waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_max: Option<f64>,
    /// Requests being computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_mean: Option<f64>,
    /// Part of the looked-up prompt tokens found in the prefix cache, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_cache_hit_rate: Option<f64>,
    /// Requests evicted and computed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptions: Option<f64>,
    /// Requests refused because there was too much to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<f64>,
    /// Spans that did not reach the collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans_lost: Option<f64>,
}

/// The server's metrics from before a run to its end.
#[derive(Debug, Default)]
pub struct Watch {
    before: Metrics,
    kv_usage: Gauge,
    waiting: Gauge,
    running: Gauge,
}

/// A value that goes up and down, as seen so far.
#[derive(Debug, Default, Clone, Copy)]
struct Gauge {
    sum: f64,
    readings: u32,
    max: f64,
}

impl Gauge {
    fn see(&mut self, value: Option<f64>) {
        let Some(value) = value else { return };
        self.max = if self.readings == 0 { value } else { self.max.max(value) };
        self.sum += value;
        self.readings += 1;
    }

    fn mean(&self) -> Option<f64> {
        (self.readings > 0).then(|| self.sum / f64::from(self.readings))
    }

    fn max(&self) -> Option<f64> {
        (self.readings > 0).then_some(self.max)
    }
}

impl Watch {
    /// Begins before the run.
    pub fn new(before: Metrics) -> Self {
        Self { before, ..Self::default() }
    }

    /// Takes a reading amid the run into account.
    pub fn see(&mut self, metrics: &Metrics) {
        self.kv_usage.see(metrics.sum("engine_kv_usage_ratio"));
        self.waiting.see(metrics.sum_where("engine_sequences", "state", "waiting"));
        self.running.see(metrics.sum_where("engine_sequences", "state", "running"));
    }

    /// What a counter, or all series of its name together, gained from before the run until `after`.
    pub fn gained(&self, after: &Metrics, name: &str) -> Option<f64> {
        Gained { before: &self.before, after }.sum(name)
    }

    /// What it comes to, with the reading `after` the run, `time` after the one before it.
    pub fn facts(&self, after: &Metrics, time: Duration) -> ServerFacts {
        let gained = Gained { before: &self.before, after };
        let step_time = gained.sum("engine_step_duration_seconds_sum");
        let part = |part| gained.sum_where("engine_step_part_duration_seconds_sum", "part", part);
        let tokens = |kind| gained.sum_where("engine_step_tokens_sum", "kind", kind);
        let spans = |outcome| gained.sum_where("gateway_telemetry_spans_total", "outcome", outcome);
        let seconds = Some(time.as_secs_f64());
        let utilization = |work: &str, limit: &str| ratio(ratio(gained.sum(work), part("forward")), after.sum(limit));
        ServerFacts {
            batch_limit: after.sum("engine_batch_limit"),
            batch_mean: ratio(gained.sum("engine_batch_size_sum"), gained.sum("engine_batch_size_count")),
            step_mean_ms: ratio(step_time, gained.sum("engine_step_duration_seconds_count")).map(|mean| mean * 1e3),
            step_token_limit: after.sum("engine_step_token_limit"),
            prefill_tokens_per_s: ratio(tokens("prefill"), seconds),
            decode_tokens_per_s: ratio(tokens("decode"), seconds),
            plan_share: ratio(part("plan"), step_time),
            sample_share: ratio(part("sample"), step_time),
            memory_bandwidth_utilization: utilization(
                "engine_step_memory_bytes_total",
                "engine_memory_bandwidth_limit_bytes_per_second",
            ),
            compute_utilization: utilization("engine_step_operations_total", "engine_compute_limit_per_second"),
            kv_usage_mean: self.kv_usage.mean(),
            kv_usage_max: self.kv_usage.max(),
            waiting_mean: self.waiting.mean(),
            waiting_max: self.waiting.max(),
            running_mean: self.running.mean(),
            prefix_cache_hit_rate: ratio(
                gained.sum("engine_prefix_cache_hits_total"),
                gained.sum("engine_prefix_cache_lookups_total"),
            ),
            preemptions: gained.sum("engine_preemptions_total"),
            refused: gained.sum_where("gateway_requests_finished_total", "reason", "overloaded"),
            spans_lost: spans("dropped").zip(spans("failed")).map(|(dropped, failed)| dropped + failed),
        }
    }
}

/// What counters gained between two readings.
struct Gained<'a> {
    before: &'a Metrics,
    after: &'a Metrics,
}

impl Gained<'_> {
    fn sum(&self, name: &str) -> Option<f64> {
        gain(self.before.sum(name), self.after.sum(name))
    }

    fn sum_where(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        gain(self.before.sum_where(name, label, value), self.after.sum_where(name, label, value))
    }
}

/// A series may appear with its first event; one that fell belongs to a server that started anew.
fn gain(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    Some(after? - before.unwrap_or(0.0)).filter(|gained| *gained >= 0.0)
}

fn ratio(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    Some(part? / whole.filter(|whole| *whole > 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(scale: f64) -> Metrics {
        let counters = [
            ("engine_batch_size_sum", 30.0),
            ("engine_batch_size_count", 10.0),
            ("engine_step_duration_seconds_sum", 0.5),
            ("engine_step_duration_seconds_count", 10.0),
            ("engine_step_part_duration_seconds_sum{part=\"plan\"}", 0.05),
            ("engine_step_part_duration_seconds_sum{part=\"forward\"}", 0.4),
            ("engine_step_part_duration_seconds_sum{part=\"sample\"}", 0.025),
            ("engine_step_tokens_sum{kind=\"prefill\"}", 200.0),
            ("engine_step_tokens_sum{kind=\"decode\"}", 20.0),
            ("engine_step_memory_bytes_total", 2e9),
            ("engine_step_operations_total", 1e9),
            ("engine_prefix_cache_hits_total", 30.0),
            ("engine_prefix_cache_lookups_total", 120.0),
            ("engine_preemptions_total", 1.0),
            ("gateway_requests_finished_total{reason=\"overloaded\"}", 4.0),
            ("gateway_requests_finished_total{reason=\"stop\"}", 90.0),
            ("gateway_telemetry_spans_total{outcome=\"dropped\"}", 2.0),
            ("gateway_telemetry_spans_total{outcome=\"failed\"}", 3.0),
        ];
        let counters = counters.map(|(name, value)| format!("{name} {}\n", value * scale)).concat();
        let limits = "engine_batch_limit 64\nengine_step_token_limit 128\n\
                      engine_memory_bandwidth_limit_bytes_per_second 1e10\nengine_compute_limit_per_second 1e11\n";
        Metrics::parse(&(counters + limits))
    }

    fn gauges(kv: f64, waiting: f64, running: f64) -> Metrics {
        Metrics::parse(&format!(
            "engine_kv_usage_ratio {kv}\nengine_sequences{{state=\"waiting\"}} {waiting}\n\
             engine_sequences{{state=\"running\"}} {running}\n"
        ))
    }

    #[test]
    fn facts_are_what_was_gained_over_the_run() {
        let mut watch = Watch::new(page(1.0));
        watch.see(&gauges(0.2, 0.0, 1.0));
        watch.see(&gauges(0.6, 4.0, 3.0));
        let facts = watch.facts(&page(3.0), Duration::from_secs(10));
        let expected = ServerFacts {
            batch_limit: Some(64.0),
            batch_mean: Some(3.0),
            step_mean_ms: Some(50.0),
            step_token_limit: Some(128.0),
            prefill_tokens_per_s: Some(40.0),
            decode_tokens_per_s: Some(4.0),
            plan_share: Some(0.1),
            sample_share: Some(0.05),
            memory_bandwidth_utilization: Some(0.5),
            compute_utilization: Some(0.025),
            kv_usage_mean: Some(0.4),
            kv_usage_max: Some(0.6),
            waiting_mean: Some(2.0),
            waiting_max: Some(4.0),
            running_mean: Some(2.0),
            prefix_cache_hit_rate: Some(0.25),
            preemptions: Some(2.0),
            refused: Some(8.0),
            spans_lost: Some(10.0),
        };
        let rounded = |facts: ServerFacts| format!("{facts:.6?}");
        assert_eq!(rounded(facts), rounded(expected));
    }

    #[test]
    fn what_a_server_does_not_publish_is_absent() {
        let strange = Metrics::parse("vllm:num_requests_running 3\n");
        assert_eq!(Watch::new(strange.clone()).facts(&strange, Duration::from_secs(1)), ServerFacts::default());
    }

    #[test]
    fn a_server_that_started_anew_gives_no_counts() {
        let facts = Watch::new(page(2.0)).facts(&page(1.0), Duration::from_secs(1));
        assert_eq!((facts.preemptions, facts.batch_mean, facts.batch_limit), (None, None, Some(64.0)));
    }
}
