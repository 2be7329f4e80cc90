//! The figures of a report as plain data: what the terminal prints and the JSON holds are both these.
//!
//! Times are in milliseconds unless a name says otherwise. What could not be measured is absent.

use serde::{Deserialize, Serialize};

use super::aggregate::ErrorCount;
use super::histogram::Distribution;
use super::verdict::Verdict;

/// The stretch of the run that the figures are about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowFacts {
    /// Its first instant, in microseconds since the run's epoch.
    pub start_us: u64,
    /// Its end for rates; requests sent within it are followed to their own end.
    pub end_us: u64,
    /// Its length.
    pub seconds: f64,
    /// Whether requests sent before all users were started are left out.
    pub ramp_excluded: bool,
    /// How many were left out.
    pub excluded_requests: u64,
}

/// Requests by outcome, within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered whole.
    pub succeeded: u64,
    /// Failed; see the errors.
    pub failed: u64,
    /// Cut on this side when a signal ended the run.
    pub interrupted: u64,
    /// Cut on this side when the run time and its grace were over.
    #[serde(default)]
    pub cut: u64,
}

/// The distributions; each absent when nothing was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Sent → first event with text.
    pub ttft: Option<Distribution>,
    /// (Last − first text) / (output tokens − 1), one value per request.
    pub tpot: Option<Distribution>,
    /// Between neighbouring events with text, one value per pair.
    pub inter_token_gap: Option<Distribution>,
    /// Sent → end of the answer.
    pub latency: Option<Distribution>,
    /// Due → first event with text.
    pub ttft_from_schedule: Option<Distribution>,
    /// Due → end of the answer.
    pub latency_from_schedule: Option<Distribution>,
}

/// Rates within the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Answers ended.
    pub requests_per_s: f64,
    /// Tokens arrived.
    pub output_tokens_per_s: f64,
    /// Prompt tokens of the answers begun.
    pub input_tokens_per_s: f64,
    /// Requests in flight, on average.
    pub mean_in_flight: f64,
}

/// Token counts of the successful requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of the prompts.
    pub input: u64,
    /// Of these, found in the server's prefix cache.
    pub cached: u64,
    /// Of the answers.
    pub output: u64,
    /// Output tokens per streamed event: 1 when nothing is coalesced.
    pub per_event: Option<f64>,
    /// Share of gaps under 0.1 ms: events that arrived together.
    pub bunched_gaps: Option<f64>,
    /// Answers without a token count, for which events were counted.
    pub without_usage: u64,
    /// Answers with figures of the server that cannot be, and are in none of these.
    #[serde(default)]
    pub implausible: u64,
    /// What the first of them said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implausible_example: Option<String>,
}

/// One phase as the server's ledger reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseRow {
    /// Its name.
    pub phase: String,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95% do not exceed it.
    pub p95: f64,
    /// Its part of the mean latency seen by the client.
    pub share: f64,
}

/// Where the time of a request goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Requests that came with a ledger.
    pub requests: u64,
    /// The server's phases, then `network + client`: latency minus the server's total.
    pub rows: Vec<PhaseRow>,
    /// The row with the largest share.
    pub largest: String,
}

/// What measuring itself costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClientCost {
    /// `GET /health/live` before the run: network and client, without load.
    pub round_trip_idle: Option<Distribution>,
    /// The same, ten times a second during the run.
    pub round_trip_loaded: Option<Distribution>,
    /// Reading the server's `/metrics`, once a second during the run.
    #[serde(default)]
    pub metrics_read: Option<Distribution>,
    /// How late this process woke from a timer during the run.
    pub wake_up_lag: Option<Distribution>,
}

/// The client's time to first token against the server's own histogram, over the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServerCheck {
    /// Requests with a first token, as this side counts.
    pub client_requests: u64,
    /// Requests with a first token, as the server counts.
    pub server_requests: u64,
    /// Mean here.
    pub client_mean_ttft: f64,
    /// Mean there.
    pub server_mean_ttft: f64,
    /// The mean loaded round trip: what lies between the two.
    pub round_trip: f64,
    /// (Client − (server + round trip)) / (server + round trip), in percent.
    pub difference_percent: f64,
}

/// Everything the records of a run say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What the figures are about.
    pub window: WindowFacts,
    /// By outcome.
    pub requests: Counts,
    /// In milliseconds.
    pub latencies_ms: Latencies,
    /// Per second.
    pub throughput: Throughput,
    /// Counts.
    pub tokens: Tokens,
    /// By class.
    pub errors: Vec<ErrorCount>,
    /// Against fixed limits.
    pub verdicts: Vec<Verdict>,
    /// As the server reports them; absent when it does not.
    pub phases_ms: Option<Phases>,
    /// Answers that carried the trace id sent.
    pub traces_joined: u64,
}
