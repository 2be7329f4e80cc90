//! Synthetic requests: one scenario per bottleneck, properties that hold for all, one answer as it is printed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod printed;
mod properties;
mod scenarios;

use super::observation::{Attributed, ClientSide, Clock, Observation, ServerSide, Tokens};
use super::{Analysis, Evidence, analyse};
use crate::server::ServerFacts;

const MS: u64 = 1_000_000;

/// A request by its times in milliseconds; each that is not set is 0 or none.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    due_to_sent: u64,
    /// Receive, tokenize, queue, prefill, decode, deliver.
    phases: [u64; 6],
    stalled: u64,
    preempted: u64,
    interference: u64,
    /// Between sending and the server, and between its first token and the first text.
    network: [u64; 2],
    /// Between the server's end and the client's, beyond the network.
    late: u64,
    prompt: u64,
    cached: u64,
    output: u64,
}

impl Made {
    /// Sent at `at` milliseconds of a run.
    fn sent_at(&self, at: u64) -> Observation {
        let before: u64 = self.phases[..4].iter().sum();
        let [out, back] = self.network;
        let sent = (at + self.due_to_sent) * MS;
        let first = sent + (out + before + back) * MS;
        let last = first + (self.phases[4] + self.late) * MS;
        let client = ClientSide {
            clock: Clock::Run(0),
            scheduled: at * MS,
            sent,
            first: Some(first),
            last: Some(last),
            end: last + self.phases[5] * MS,
            ramp: false,
            failure: None,
        };
        let server = ServerSide {
            start: None,
            total: self.phases.iter().sum::<u64>() * MS,
            phases: self.phases.map(|phase| Some(phase * MS)),
            attributed: Attributed {
                stalled: self.stalled * MS,
                preempted: self.preempted * MS,
                interference: self.interference * MS,
            },
            failure: None,
        };
        let tokens = Tokens { prompt: Some(self.prompt), cached: Some(self.cached), output: Some(self.output) };
        Observation { client: Some(client), server: Some(server), tokens }
    }

    /// `count` of them, one each `every` milliseconds.
    fn evidence(&self, count: u64, every: u64, facts: ServerFacts) -> Evidence {
        let observations = (0..count).map(|index| self.sent_at(index * every)).collect();
        Evidence { observations, facts: Some(facts), ..Evidence::default() }
    }
}

/// What a server with nothing to complain about says of itself.
fn facts() -> ServerFacts {
    ServerFacts {
        batch_limit: Some(64.0),
        batch_mean: Some(4.0),
        step_mean_ms: Some(10.0),
        step_token_limit: Some(512.0),
        prefill_tokens_per_s: Some(500.0),
        decode_tokens_per_s: Some(800.0),
        plan_share: Some(0.01),
        sample_share: Some(0.03),
        memory_bandwidth_utilization: Some(0.3),
        compute_utilization: Some(0.1),
        kv_usage_mean: Some(0.1),
        kv_usage_max: Some(0.2),
        waiting_mean: Some(0.0),
        waiting_max: Some(0.0),
        running_mean: Some(4.0),
        prefix_cache_hit_rate: Some(0.8),
        preemptions: Some(0.0),
        refused: Some(0.0),
        spans_lost: Some(0.0),
    }
}

/// A request with nothing to complain about: 50 ms to the first of 21 tokens, 10 ms for each after it.
fn good() -> Made {
    Made { phases: [1, 1, 2, 44, 200, 1], network: [1, 1], prompt: 100, cached: 80, output: 21, ..Made::default() }
}

fn named(analysis: &Analysis) -> &'static str {
    analysis.bottleneck.as_ref().unwrap().id
}

/// All that the bottleneck's words say.
fn words(analysis: &Analysis) -> String {
    let finding = analysis.bottleneck.as_ref().unwrap();
    [finding.evidence.join(" "), finding.advice.join(" ")].join(" ")
}

fn of(made: Made, facts: ServerFacts) -> Analysis {
    analyse(&made.evidence(60, 100, facts))
}
