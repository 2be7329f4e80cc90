//! One rule per bottleneck: the time it answers for, how it shows, and what to change.
//!
//! Every segment of a request's time is claimed by exactly one rule, whatever the figures say, so that no time
//! is without an answer and none has two. What the figures say decides which.
//!
//! - `queue`: waiting for the first step, by what for: places, KV cache, or other prompts;
//! - `compute`: the model at work;
//! - `client`: the client, its network, and the way into the server;
//! - `failing`: requests that came to no good end;
//! - `healthy`: none of them; `implausible`: nobody knows.

mod client;
mod compute;
mod failing;
mod queue;

use super::failures::FailureCount;
use super::figures::Figures;
use super::segments::Segment;
use crate::server::ServerFacts;
use crate::stats::{Thresholds, Verdict};
use crate::words::number;

/// What rules look at.
pub(super) struct Case<'a> {
    /// Absent when no request came to a good end.
    pub(super) figures: Option<&'a Figures>,
    /// Every fact absent where the server said nothing.
    pub(super) facts: &'a ServerFacts,
    pub(super) failures: &'a [FailureCount],
}

/// A segment, before the first text or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    First(Segment),
    Rest(Segment),
}

impl Part {
    fn both(segment: Segment) -> [Self; 2] {
        [Self::First(segment), Self::Rest(segment)]
    }
}

/// The time that a rule answers for.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// Nobody gains by it.
    pub(super) waiting: Vec<Part>,
    /// It is what the server is there for.
    pub(super) work: Vec<Part>,
}

impl Claim {
    fn waiting(segments: &[Segment]) -> Self {
        Self { waiting: segments.iter().copied().flat_map(Part::both).collect(), work: Vec::new() }
    }
}

/// A rule's words for what it claims.
#[derive(Debug)]
pub(super) struct Explanation {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) evidence: Vec<String>,
    pub(super) advice: Vec<String>,
}

/// One bottleneck.
pub(super) struct Rule {
    /// What it answers for, if it applies.
    pub(super) claim: fn(&Case<'_>) -> Option<Claim>,
    /// Asked only if that took any time.
    pub(super) explain: fn(&Case<'_>, &Figures) -> Explanation,
}

/// All rules about time.
pub(super) const RULES: [Rule; 10] = [
    queue::SLOTS,
    queue::KV,
    compute::PREFILL,
    compute::INTERFERENCE,
    compute::DECODE,
    client::SLOW_READER,
    client::NETWORK,
    client::LOAD_GENERATOR,
    client::INTAKE,
    client::UNEXPLAINED,
];

/// All rules about failures, the gravest first.
pub(super) const FAILING: [fn(&Case<'_>) -> Option<Explanation>; 2] = [failing::overload, failing::errors];

/// What names that no rule has anything to say.
pub(super) const HEALTHY: &str = "healthy";

/// What is said instead when the server's figures cannot be.
pub(super) fn implausible() -> Explanation {
    Explanation {
        id: "implausible",
        title: "The server's figures are implausible".into(),
        evidence: vec!["It claims counts or times that cannot be; they were left out.".into()],
        advice: vec!["Find out why the server misreports: until then nothing can be said of it.".into()],
    }
}

/// What is said when no rule has anything to say.
pub(super) fn healthy(figures: &Figures) -> Explanation {
    let told = |metric: &str, name: &str, limit: Thresholds| {
        let verdict: &Verdict = figures.verdicts.iter().find(|verdict| verdict.metric == metric)?;
        Some(format!("{name} p95 is {} ms (good below {} ms).", number(verdict.value_ms), limit.good_below_ms))
    };
    let verdicts = [
        told("ttft", "Time to first token (TTFT):", Thresholds::TTFT),
        told("tpot", "Time per output token (TPOT):", Thresholds::TPOT),
    ];
    Explanation {
        id: HEALTHY,
        title: "Nothing holds it back at this load".into(),
        evidence: verdicts
            .into_iter()
            .flatten()
            .chain(["No waiting makes up a quarter of the time or more.".into()])
            .collect(),
        advice: vec!["Nothing. Raise the load to find the limit; the next one is below.".into()],
    }
}
