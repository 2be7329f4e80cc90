//! The figures that rules judge and cite: all of them are in the JSON, and each follows from the requests.

use serde::Serialize;

use super::bands::Spread;
use super::observation::{Observation, millis};
use super::segments::{Parts, SEGMENTS, Segment, Split, total};
use crate::stats::{Grade, Thresholds, Verdict};

/// One analysed request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Analysed<'a> {
    pub(super) observation: &'a Observation,
    pub(super) split: Split,
}

/// What the requests say about the deployment. Times are means over the requests, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Requests that came to a good end; all times are about these.
    pub requests: usize,
    /// Seconds during which requests were sent and under way.
    pub busy_s: f64,
    /// Requests per second of that time.
    pub requests_per_s: f64,
    /// The user-seen time: due until the end.
    pub latency_ms: Spread,
    /// Sent until the first text.
    pub ttft_ms: Option<Spread>,
    /// Time per output token after the first.
    pub tpot_ms: Option<Spread>,
    /// Good, acceptable or poor.
    pub verdicts: Vec<Verdict>,
    /// By segment, those that took any time.
    pub segments: Vec<SegmentFigures>,
    /// By Little's law, requests per second × (prefill + decode): places in the batch in use.
    pub slots_busy: f64,
    /// By Little's law, requests per second × (queue + prefill + decode): places wanted at a time.
    pub slots_wanted: f64,
    /// Tokens of a prompt.
    pub prompt_tokens: Option<f64>,
    /// Tokens of an answer.
    pub output_tokens: Option<f64>,
    /// Prompt tokens found in the prefix cache, 0 to 1.
    pub cached_share: Option<f64>,
}

/// One segment's figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SegmentFigures {
    /// Which.
    pub segment: Segment,
    /// Before the first text.
    pub first: StageFigures,
    /// After it.
    pub rest: StageFigures,
}

/// One segment's part of one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StageFigures {
    /// Its mean.
    pub ms: f64,
    /// Its part in what lies beyond the limit of good: of each request's time to first text beyond
    /// [`Thresholds::TTFT`], and of the time after it beyond [`Thresholds::TPOT`] per token, in proportion.
    /// 0 where 95% of the requests are good.
    pub beyond_good_ms: f64,
}

impl Figures {
    /// Of `requests`, at least one, during `busy` nanoseconds; each stands for `scale` requests.
    pub(super) fn of(requests: &[Analysed<'_>], busy: u64, scale: f64) -> Option<Self> {
        let spread = |of: &dyn Fn(&Analysed<'_>) -> Option<u64>| Spread::of(requests.iter().filter_map(of));
        let latency_ms = spread(&|request| Some(request.split.total()))?;
        let ttft_ms = spread(&|request| request.observation.ttft());
        let tpot_ms = spread(&|request| request.observation.tpot());
        let verdicts = verdicts(ttft_ms, tpot_ms);
        let segments = segments(requests, &verdicts);
        let busy_s = busy as f64 / 1e9;
        let requests_per_s = if busy == 0 { 0.0 } else { requests.len() as f64 * scale / busy_s };
        let prompt_tokens = mean(requests, |request| request.observation.tokens.prompt);
        let mut figures = Self {
            requests: requests.len(),
            busy_s,
            requests_per_s,
            latency_ms,
            ttft_ms,
            tpot_ms,
            verdicts,
            segments,
            slots_busy: 0.0,
            slots_wanted: 0.0,
            prompt_tokens,
            output_tokens: mean(requests, |request| request.observation.tokens.output),
            cached_share: mean(requests, |request| request.observation.tokens.cached)
                .zip(prompt_tokens)
                .and_then(|(cached, prompt)| (prompt > 0.0).then_some(cached / prompt)),
        };
        let computing = figures.ms(&COMPUTING);
        figures.slots_busy = requests_per_s * computing / 1e3;
        figures.slots_wanted = requests_per_s * (computing + figures.ms(&[Segment::Queue])) / 1e3;
        Some(figures)
    }

    /// The mean of `segments` together, before and after the first text.
    pub(super) fn ms(&self, segments: &[Segment]) -> f64 {
        segments.iter().map(|segment| self.first(*segment).ms + self.rest(*segment).ms).sum()
    }

    /// A segment before the first text.
    pub(super) fn first(&self, segment: Segment) -> StageFigures {
        self.segment(segment).map_or_else(StageFigures::default, |figures| figures.first)
    }

    /// A segment after the first text.
    pub(super) fn rest(&self, segment: Segment) -> StageFigures {
        self.segment(segment).map_or_else(StageFigures::default, |figures| figures.rest)
    }

    fn segment(&self, segment: Segment) -> Option<&SegmentFigures> {
        self.segments.iter().find(|figures| figures.segment == segment)
    }
}

/// What a place in the batch is taken for.
const COMPUTING: [Segment; 5] =
    [Segment::Prefill, Segment::Decode, Segment::Interference, Segment::Preempted, Segment::Stalled];

fn mean(requests: &[Analysed<'_>], of: impl Fn(&Analysed<'_>) -> Option<u64>) -> Option<f64> {
    let values: Vec<u64> = requests.iter().filter_map(of).collect();
    (!values.is_empty()).then(|| values.iter().map(|value| *value as f64).sum::<f64>() / values.len() as f64)
}

fn verdicts(ttft: Option<Spread>, tpot: Option<Spread>) -> Vec<Verdict> {
    let ttft = ttft.map(|spread| Verdict::new("ttft", "p95", spread.p95, Thresholds::TTFT));
    let tpot = tpot.map(|spread| Verdict::new("tpot", "p95", spread.p95, Thresholds::TPOT));
    ttft.into_iter().chain(tpot).collect()
}

fn segments(requests: &[Analysed<'_>], verdicts: &[Verdict]) -> Vec<SegmentFigures> {
    let bad = |metric| verdicts.iter().any(|verdict| verdict.metric == metric && verdict.grade != Grade::Good);
    let (ttft_bad, tpot_bad) = (bad("ttft"), bad("tpot"));
    let mut first = [StageFigures::default(); SEGMENTS];
    let mut rest = first;
    for Analysed { observation, split } in requests {
        let delay = split.first[Segment::ClientQueue as usize];
        let before = total(&split.first) - delay;
        let ttft_limit = if ttft_bad { Thresholds::TTFT.good_below_ms } else { f64::INFINITY };
        // The client's own delay is in no verdict.
        let mut judged = split.first;
        judged[Segment::ClientQueue as usize] = 0;
        add(&mut first, &split.first, &judged, beyond(before, ttft_limit));
        let after = total(&split.rest);
        let steps = observation.tokens.output.and_then(|tokens| tokens.checked_sub(1)).filter(|_| tpot_bad);
        let tpot_limit = steps.map_or(f64::INFINITY, |steps| Thresholds::TPOT.good_below_ms * steps as f64);
        add(&mut rest, &split.rest, &split.rest, beyond(after, tpot_limit));
    }
    let count = requests.len().max(1) as f64;
    let mean =
        |stage: StageFigures| StageFigures { ms: stage.ms / count, beyond_good_ms: stage.beyond_good_ms / count };
    Segment::ALL
        .into_iter()
        .map(|segment| SegmentFigures {
            segment,
            first: mean(first[segment as usize]),
            rest: mean(rest[segment as usize]),
        })
        .filter(|figures| figures.first.ms + figures.rest.ms > 0.0)
        .collect()
}

/// Which part of `time` lies beyond `limit_ms`, 0 to 1.
fn beyond(time: u64, limit_ms: f64) -> f64 {
    let time = millis(time);
    if time > limit_ms { (time - limit_ms) / time } else { 0.0 }
}

fn add(sums: &mut [StageFigures; SEGMENTS], parts: &Parts, judged: &Parts, beyond: f64) {
    for ((sum, part), judged) in sums.iter_mut().zip(parts).zip(judged) {
        sum.ms += millis(*part);
        sum.beyond_good_ms += millis(*judged) * beyond;
    }
}
