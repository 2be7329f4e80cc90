//! Figures from times, as JSON; `table` shows them, `device` says what a GPU is.

mod device;
mod table;

use device::GpuFacts;
use engine::Device;
use serde::Serialize;

use crate::{
    args::Args,
    measure::{Measured, Round, median},
    rows::Row,
    whole::Whole,
};

/// The result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    model: String,
    /// The GPU, where one computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<GpuFacts>,
    /// Threads, where the CPU computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    limits: Limits,
    rows: Vec<Line>,
}

/// The medians of what was measured beside the rows.
#[derive(Debug, Serialize)]
struct Limits {
    bandwidth_gb_s: f64,
    #[serde(flatten)]
    compute: Option<Compute>,
}

/// Operations per second, in the unit that suits the device.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Compute {
    Cpu { compute_gop_s: f64 },
    Gpu { compute_tflop_s: f64, compute_of: &'static str },
}

/// One row's figures.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    row: Row,
    /// By the median of all steps.
    tokens_per_s: f64,
    best_tokens_per_s: f64,
    bytes_per_step: u64,
    bandwidth_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_share: Option<f64>,
    #[serde(flatten)]
    gpu: Option<GpuLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_tokens_per_s: Option<f64>,
    /// The median over rounds of our best step by the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead_share: Option<f64>,
}

/// What is told of a row on a GPU besides.
#[derive(Debug, Serialize)]
struct GpuLine {
    /// Tokens per second at the limit that is nearer: bytes at full bandwidth, or operations at full speed.
    floor_tokens_per_s: f64,
    /// How much of these are reached.
    floor_share: f64,
    /// The share of the time in which the device waits for the host, which launches steps ahead.
    host_overhead_share: f64,
}

impl Report {
    pub(crate) fn new(args: &Args, device: &Device, measured: &[Measured], whole: &[Whole]) -> Self {
        let device = device.info().map(GpuFacts::new);
        Self {
            model: args.model.display().to_string(),
            threads: device.is_none().then(|| args.threads()),
            limits: Limits::new(measured, device.is_some()),
            device,
            rows: measured
                .iter()
                .map(|measured| Line::new(measured, whole.iter().find(|whole| whole.row == measured.row)))
                .collect(),
        }
    }
}

impl Limits {
    fn new(measured: &[Measured], gpu: bool) -> Self {
        let rounds: Vec<&Round> = measured.iter().flat_map(|measured| &measured.rounds).collect();
        let compute = median_compute(rounds.iter().copied()).zip(rounds.first()).map(|(compute, round)| match gpu {
            false => Compute::Cpu { compute_gop_s: compute / 1e9 },
            true => Compute::Gpu { compute_tflop_s: compute / 1e12, compute_of: round.limits.operands },
        });
        Self { bandwidth_gb_s: median(rounds.iter().map(|round| round.limits.bandwidth)) / 1e9, compute }
    }
}

/// `None` where there is none.
fn median_compute<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Option<f64> {
    let compute: Vec<f64> = rounds.into_iter().filter_map(|round| round.limits.compute).collect();
    (!compute.is_empty()).then(|| median(compute))
}

impl Line {
    fn new(measured: &Measured, whole: Option<&Whole>) -> Self {
        let Measured { row, work, steps, rounds } = measured;
        let tokens = row.tokens() as f64;
        let best = |round: &Round| tokens / round.passes.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let seconds = median(rounds.iter().flat_map(|round| round.passes.seconds.iter().copied()));
        let has_peer = rounds.iter().any(|round| round.peer.is_some());
        let over_peer = |value: fn(f64, f64) -> f64| {
            has_peer.then(|| median(rounds.iter().filter_map(|round| Some(value(best(round), round.peer?)))))
        };
        let bandwidth_share = work.bytes as f64 / seconds / median(rounds.iter().map(|round| round.limits.bandwidth));
        let compute_share = median_compute(rounds).map(|compute| work.operations as f64 / seconds / compute);
        let tokens_per_s = tokens / seconds;
        Self {
            row: *row,
            tokens_per_s,
            best_tokens_per_s: rounds.iter().map(best).fold(0.0, f64::max),
            bytes_per_step: work.bytes / *steps as u64,
            bandwidth_share,
            compute_share,
            gpu: GpuLine::new(rounds, tokens_per_s, bandwidth_share.max(compute_share.unwrap_or(0.0))),
            peer_tokens_per_s: over_peer(|_, peer| peer),
            peer_ratio: over_peer(|ours, peer| ours / peer),
            engine_tokens_per_s: whole.map(|whole| whole.tokens_per_s),
            overhead_share: whole.map(|whole| whole.overhead),
        }
    }
}

impl GpuLine {
    fn new(rounds: &[Round], tokens_per_s: f64, floor_share: f64) -> Option<Self> {
        let overheads: Vec<f64> = rounds.iter().filter_map(|round| round.passes.host_overhead).collect();
        (!overheads.is_empty()).then(|| Self {
            floor_tokens_per_s: tokens_per_s / floor_share,
            floor_share,
            host_overhead_share: median(overheads),
        })
    }
}
