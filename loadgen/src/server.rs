//! What the server says of itself over a run, read from its `/metrics`.
//!
//! Every fact is absent where the server does not publish what it needs.

use serde::{Deserialize, Serialize};

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
