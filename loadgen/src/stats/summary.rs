//! Every figure of the report, as plain data: what the terminal prints and the JSON holds are both this.
//!
//! Times are in milliseconds unless a name says otherwise. What could not be measured is absent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, ErrorCount, Rate, Window};
use super::histogram::{Distribution, Histogram, millis};
use super::verdict::{Thresholds, Verdict};

/// Neighbouring events closer than this arrived in one piece.
const BUNCHED: Duration = Duration::from_micros(100);

/// The phases in the order a request goes through them; others follow in the order of their names.
const PHASE_ORDER: [&str; 6] = ["receive_ms", "tokenize_ms", "queue_ms", "prefill_ms", "decode_ms", "deliver_ms"];

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
    /// Cut on this side by Ctrl-C.
    pub interrupted: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

impl Summary {
    /// The figures of `steady` where the run was long enough for it, of `whole` otherwise.
    ///
    /// Long enough: all users were started, the time with all of them is at least the time it took to start
    /// them, and at least one request sent in it succeeded.
    pub fn choose(whole: &Aggregate, steady: Option<&Aggregate>) -> Self {
        let (chosen, ramp_excluded) = match steady {
            Some(steady) if Self::worth_it(whole, steady) => (steady, steady.window.start_us > whole.window.start_us),
            _ => (whole, false),
        };
        let excluded_requests = whole.requests() - chosen.requests();
        let Window { start_us, end_us } = chosen.window;
        let window =
            WindowFacts { start_us, end_us, seconds: seconds(chosen.window), ramp_excluded, excluded_requests };
        Self::of(chosen, window)
    }

    fn worth_it(whole: &Aggregate, steady: &Aggregate) -> bool {
        let ramp = steady.window.start_us.saturating_sub(whole.window.start_us);
        steady.succeeded > 0 && steady.window.end_us.saturating_sub(steady.window.start_us) >= ramp
    }

    fn of(aggregate: &Aggregate, window: WindowFacts) -> Self {
        let latencies = Latencies {
            ttft: aggregate.ttft.distribution(),
            tpot: aggregate.tpot.distribution(),
            inter_token_gap: aggregate.gap.distribution(),
            latency: aggregate.latency.distribution(),
            ttft_from_schedule: aggregate.ttft_from_schedule.distribution(),
            latency_from_schedule: aggregate.latency_from_schedule.distribution(),
        };
        Self {
            window,
            requests: Counts {
                succeeded: aggregate.succeeded,
                failed: aggregate.failed,
                interrupted: aggregate.interrupted,
            },
            verdicts: verdicts(&latencies),
            latencies_ms: latencies,
            throughput: throughput(aggregate.rate, aggregate.window),
            tokens: tokens(aggregate),
            errors: aggregate
                .errors
                .iter()
                .map(|(class, (count, example))| ErrorCount { class: *class, count: *count, example: example.clone() })
                .collect(),
            phases_ms: phases(aggregate),
            traces_joined: aggregate.traces_joined,
        }
    }
}

impl ServerCheck {
    /// Compares what this side saw over the whole run with what the server's histogram gained meanwhile.
    pub fn new(whole: &Aggregate, server_sum_s: f64, server_count: f64, round_trip: &Histogram) -> Option<Self> {
        let client = millis(whole.ttft.mean()?);
        let round_trip = millis(round_trip.mean()?);
        if server_count < 1.0 {
            return None;
        }
        let server = server_sum_s * 1e3 / server_count;
        let expected = server + round_trip;
        Some(Self {
            client_requests: whole.ttft.count(),
            server_requests: server_count as u64,
            client_mean_ttft: client,
            server_mean_ttft: server,
            round_trip,
            difference_percent: (client - expected) / expected * 100.0,
        })
    }
}

fn seconds(window: Window) -> f64 {
    window.end_us.saturating_sub(window.start_us) as f64 / 1e6
}

fn throughput(rate: Rate, window: Window) -> Throughput {
    let per_second = |amount: f64| match seconds(window) {
        0.0 => 0.0,
        seconds => amount / seconds,
    };
    Throughput {
        requests_per_s: per_second(rate.ended as f64),
        output_tokens_per_s: per_second(rate.output_tokens),
        input_tokens_per_s: per_second(rate.prompt_tokens as f64),
        mean_in_flight: per_second(rate.in_flight_us as f64 / 1e6),
    }
}

fn tokens(aggregate: &Aggregate) -> Tokens {
    let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    Tokens {
        input: aggregate.prompt_tokens,
        cached: aggregate.cached_tokens,
        output: aggregate.output_tokens,
        per_event: ratio(aggregate.output_tokens, aggregate.events),
        bunched_gaps: ratio(aggregate.gap.count_below(BUNCHED), aggregate.gap.count()),
        without_usage: aggregate.without_usage,
    }
}

fn verdicts(latencies: &Latencies) -> Vec<Verdict> {
    let ttft = latencies.ttft.map(|figures| Verdict::new("ttft", "p95", figures.p95, Thresholds::TTFT));
    let tpot = latencies.tpot.into_iter().flat_map(|figures| {
        [
            Verdict::new("tpot", "p50", figures.p50, Thresholds::TPOT),
            Verdict::new("tpot", "p95", figures.p95, Thresholds::TPOT),
        ]
    });
    ttft.into_iter().chain(tpot).collect()
}

fn phases(aggregate: &Aggregate) -> Option<Phases> {
    let latency = millis(aggregate.with_ledger.mean()?);
    let rank = |name: &str| PHASE_ORDER.iter().position(|known| *known == name).unwrap_or(PHASE_ORDER.len());
    let mut names: Vec<&String> = aggregate.phases.keys().collect();
    names.sort_by_key(|name| (rank(name), name.as_str()));
    let requests = aggregate.with_ledger.count();
    let row = |phase: &str, histogram: &Histogram| {
        let figures = histogram.distribution()?;
        // A phase that some requests never reached took them no time.
        let share = figures.mean * figures.count as f64 / requests as f64 / latency;
        Some(PhaseRow { phase: phase.into(), mean: figures.mean, p50: figures.p50, p95: figures.p95, share })
    };
    let mut rows: Vec<PhaseRow> = names
        .into_iter()
        .filter_map(|name| row(name.strip_suffix("_ms").unwrap_or(name), aggregate.phases.get(name)?))
        .collect();
    rows.extend(row("network + client", &aggregate.outside));
    let largest = rows.iter().max_by(|a, b| a.share.total_cmp(&b.share))?.phase.clone();
    Some(Phases { requests, rows, largest })
}
