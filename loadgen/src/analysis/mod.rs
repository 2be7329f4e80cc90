//! Where the time of requests went, and what holds the deployment back: pure, from requests to an answer.
//!
//! - `observation`: one request, as the client saw it and as the server had it;
//! - `segments`: its time, cut into parts that sum to it exactly;
//! - `bands`, `growth`, `load`: what sets the slowest apart, and what grows with load;
//! - `failures`: those that came to no good end;
//! - `figures`: what the requests come to: all that rules judge and cite;
//! - `rules`: one bottleneck each: what it costs, how it shows, what to change;
//! - `bottleneck`: the rules' claims, ranked;
//! - `sources`: files and servers → observations, joined by trace id.

mod bands;
mod bottleneck;
mod failures;
mod figures;
mod growth;
mod load;
mod notes;
pub mod observation;
mod rules;
mod segments;
pub mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub use bands::{Band, Profile, SegmentTime, Spread, Tail};
pub use bottleneck::Finding;
pub use failures::FailureCount;
pub use figures::{Figures, SegmentFigures, StageFigures};
pub use growth::{Growing, Growth, LoadBand};
use observation::{ClientSide, Clock, Observation, ServerSide, Tokens};
pub use segments::Segment;
use segments::{Split, unify_ways};

use crate::record::{ErrorClass, Row};
use crate::server::ServerFacts;
use figures::Analysed;
use load::Load;

/// Names the shape of the JSON; its number rises when a field changes its meaning or goes.
pub const SCHEMA: &str = "loadgen.analysis/1";

/// Why what a server says of its answers is not used.
const IMPLAUSIBLE: &str = "implausible figures of answers";
const ABSURD_LEDGER: &str = "server ledgers with negative or absurd times";

/// What an analysis is made of.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Requests.
    pub observations: Vec<Observation>,
    /// What the server said of itself meanwhile.
    pub facts: Option<ServerFacts>,
    /// How many requests the observations were drawn from; 0 if they are all there were.
    pub drawn_from: u64,
    /// What could not be used, by why.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Analysis {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What it is about.
    pub requests: Counts,
    /// What holds the deployment back; absent when no request was seen.
    pub bottleneck: Option<Finding>,
    /// What would hold it back next.
    pub runner_up: Option<Finding>,
    /// What the rules judged; absent when no request came to a good end.
    pub figures: Option<Figures>,
    /// What the server said of itself, as the rules judged it.
    pub server: Option<ServerFacts>,
    /// The whole time by segment, for bands of its length.
    pub latency: Option<Profile>,
    /// The time up to the first text, likewise.
    pub ttft: Option<Profile>,
    /// The whole time by segment, for bands of load.
    pub growth: Growth,
    /// Requests in none of the times above.
    pub failures: Vec<FailureCount>,
    /// Why any of it may not be trusted.
    pub notes: Vec<String>,
}

/// Requests by what is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All that were seen.
    pub seen: usize,
    /// How many those were drawn from.
    pub drawn_from: u64,
    /// Came to a good end while all users were active: the analysed.
    pub analysed: usize,
    /// Of the analysed: seen by the client.
    pub with_client: usize,
    /// Of the analysed: with the server's ledger.
    pub with_server: usize,
    /// Failed.
    pub failed: usize,
    /// Sent while users were still being started; in growth only.
    pub in_ramp: usize,
    /// Could not be used, by why.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// Analyses `evidence`.
pub fn analyse(evidence: &Evidence) -> Analysis {
    let observations = &evidence.observations;
    let load = Load::of(observations);
    let mut splits: Vec<Option<Split>> = observations
        .iter()
        .map(|observation| Split::of(observation).filter(|_| observation.failure().is_none()))
        .collect();
    unify_ways(splits.iter_mut().flatten());
    let analysed: Vec<Analysed<'_>> = observations
        .iter()
        .zip(&splits)
        .filter(|(observation, _)| !observation.in_ramp())
        .filter_map(|(observation, split)| Some(Analysed { observation, split: (*split)? }))
        .collect();
    let scale = (evidence.drawn_from as f64 / observations.len().max(1) as f64).max(1.0);
    let loads = load.in_flight.iter().zip(&splits).filter_map(|(load, split)| {
        // Of those that were left out of the sample, the same part was under way.
        let load = ((*load)? as f64 * scale).round() as u64;
        Some((load, split.as_ref()?.whole()))
    });
    let figures = Figures::of(&analysed, busy(observations, &load), scale);
    let failures = failures::failures(observations.iter().filter(|observation| !observation.in_ramp()));
    let (bottleneck, runner_up) = bottleneck::find(figures.as_ref(), evidence.facts.as_ref(), &failures);
    let doubtful = [IMPLAUSIBLE, ABSURD_LEDGER].iter().any(|why| evidence.left_out.contains_key(why));
    let bottleneck = bottleneck.map(|found| if doubtful { found.doubted() } else { found });
    let requests = counts(evidence, &analysed, &failures);
    Analysis {
        schema: SCHEMA,
        notes: notes::notes(&requests, evidence.facts.as_ref(), &analysed),
        requests,
        bottleneck,
        runner_up,
        figures,
        server: evidence.facts,
        latency: Profile::of(analysed.iter().map(|request| request.split.whole()).collect()),
        ttft: Profile::of(
            analysed.iter().filter(|request| request.split.has_first).map(|request| request.split.first).collect(),
        ),
        growth: Growth::of(loads.collect()),
        failures,
    }
}

/// [`Load::busy`] of the requests that were not sent during ramp-up.
fn busy(observations: &[Observation], load: &Load) -> u64 {
    if !observations.iter().any(Observation::in_ramp) {
        return load.busy;
    }
    Load::of(observations.iter().filter(|observation| !observation.in_ramp())).busy
}

fn counts(evidence: &Evidence, analysed: &[Analysed<'_>], failures: &[FailureCount]) -> Counts {
    let seen = evidence.observations.len();
    let having = |part: fn(&Observation) -> bool| analysed.iter().filter(|request| part(request.observation)).count();
    Counts {
        seen,
        drawn_from: evidence.drawn_from.max(seen as u64),
        analysed: analysed.len(),
        with_client: having(|observation| observation.client.is_some()),
        with_server: having(|observation| observation.server.is_some()),
        failed: failures.iter().map(|failure| failure.count as usize).sum(),
        in_ramp: evidence.observations.iter().filter(|observation| observation.in_ramp()).count(),
        left_out: evidence.left_out.clone(),
    }
}

impl Evidence {
    /// Of a run's `rows`, drawn from `drawn_from` requests; those sent before `steady_us` are ramp-up.
    pub fn of_rows(rows: &[Row], drawn_from: u64, steady_us: u64, facts: Option<ServerFacts>) -> Self {
        let mut evidence = Self { facts, drawn_from, ..Self::default() };
        for row in rows {
            if let Some(observation) = evidence.observe(row, (Clock::Run(0), 0), steady_us) {
                evidence.observations.push(observation);
            }
        }
        evidence
    }

    /// What `row` tells of, its times shifted by an epoch on a clock; none, and counted, if it cannot be used.
    fn observe(&mut self, row: &Row, (clock, epoch): (Clock, u64), steady_us: u64) -> Option<Observation> {
        if row.error.is_some_and(ErrorClass::is_ours) {
            self.leave_out("requests cut short by the end of the run");
            return None;
        }
        let Some(mut client) = ClientSide::of_row(row, clock, epoch) else {
            self.leave_out("requests whose times run backwards");
            return None;
        };
        client.ramp = row.sent_us < steady_us;
        if row.implausible.is_some() {
            self.leave_out(IMPLAUSIBLE);
        }
        let server = row.timings.as_ref().and_then(|timings| {
            let server = ServerSide::of_timings(timings);
            if server.is_none() {
                self.leave_out(ABSURD_LEDGER);
            }
            server
        });
        let tokens = Tokens { prompt: row.prompt_tokens, cached: row.cached_tokens, output: Some(row.output_tokens) };
        Some(Observation { client: Some(client), server, tokens })
    }

    fn leave_out(&mut self, why: &'static str) {
        *self.left_out.entry(why).or_default() += 1;
    }
}
