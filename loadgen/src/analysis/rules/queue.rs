//! Waiting for the first step, by what a request waits for.

use super::{Case, Claim, Explanation, Figures, Part, Rule, Segment};
use crate::server::ServerFacts;
use crate::words::{ms, number, percent};

/// A KV cache as full as this has no room for another request.
const KV_FULL: f64 = 0.9;

/// With fewer of its places taken a batch has room.
const BATCH_FULL: f64 = 0.75;

/// From this on the machine has little left to give to a larger batch.
const MACHINE_BUSY: f64 = 0.6;

/// What keeps requests in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// A place in the batch; also if nothing is known.
    Slots,
    /// Room in the KV cache.
    Kv,
    /// The prompts before it.
    Prompts,
}

impl WaitsFor {
    pub(super) fn of(facts: &ServerFacts) -> Self {
        let running = [facts.running_mean, facts.batch_mean].into_iter().flatten().reduce(f64::max);
        let has_room = running.zip(facts.batch_limit).map(|(running, limit)| running < BATCH_FULL * limit);
        let kv_full = facts.kv_usage_max.is_some_and(|most| most >= KV_FULL);
        let mostly_prompts =
            facts.prefill_tokens_per_s.zip(facts.decode_tokens_per_s).is_some_and(|(prefill, decode)| prefill > decode);
        match has_room {
            Some(true) if kv_full => Self::Kv,
            Some(true) if mostly_prompts => Self::Prompts,
            _ => Self::Slots,
        }
    }
}

/// Too few places in the batch.
pub(super) const SLOTS: Rule = Rule {
    claim: |case| (WaitsFor::of(case.facts) == WaitsFor::Slots).then(|| Claim::waiting(&[Segment::Queue])),
    explain: slots,
};

/// Too little KV cache.
pub(super) const KV: Rule = Rule {
    claim: |case| {
        let queue = (WaitsFor::of(case.facts) == WaitsFor::Kv).then_some(Segment::Queue);
        let segments: Vec<Segment> = queue.into_iter().chain([Segment::Preempted]).collect();
        Some(Claim::waiting(&segments))
    },
    explain: kv,
};

fn slots(case: &Case<'_>, figures: &Figures) -> Explanation {
    let queue = figures.ms(&[Segment::Queue]);
    let mut evidence = vec![format!("Requests wait {} in the server's queue on average.", ms(queue))];
    let (rate, busy, wanted) = (figures.requests_per_s, figures.slots_busy, figures.slots_wanted);
    let (rate, in_batch) =
        (number(rate), number(if figures.requests_per_s > 0.0 { busy / figures.requests_per_s * 1e3 } else { 0.0 }));
    let has =
        case.facts.batch_limit.map_or_else(String::new, |limit| format!(", of the {limit} there are (--max-batch)"));
    evidence.push(format!(
        "Little's law: {rate} requests/s × {in_batch} ms in prefill and decode keep {} places in the batch busy{has}; \
         with the queue's time, {} are wanted at a time.",
        number(busy),
        number(wanted)
    ));
    if let (Some(mean), Some(max)) = (case.facts.waiting_mean, case.facts.waiting_max) {
        evidence.push(format!("{} requests were waiting on average, {max} at most.", number(mean)));
    }
    Explanation {
        id: "queue",
        title: "Requests wait for a place in the batch".into(),
        evidence,
        advice: slots_advice(case.facts, wanted),
    }
}

fn slots_advice(facts: &ServerFacts, wanted: f64) -> Vec<String> {
    let places = wanted.ceil().max(1.0);
    let Some(limit) = facts.batch_limit.filter(|limit| *limit >= 1.0) else {
        return vec![format!("Provide {places} places in the batch: a larger --max-batch, or more replicas.")];
    };
    if places <= limit {
        return vec![format!(
            "{limit} places are enough for the mean of {} wanted: arrivals come in bursts. Spread them, or raise \
             --max-batch above {limit}.",
            number(wanted)
        )];
    }
    let replicas = (wanted / limit).ceil();
    let raise = match (facts.memory_bandwidth_utilization, facts.compute_utilization) {
        (Some(memory), Some(compute)) if memory.max(compute) < MACHINE_BUSY => format!(
            "Raise --max-batch from {limit} to {places}: the machine has room, with memory bandwidth at {} and \
             compute at {}.",
            percent(memory),
            percent(compute)
        ),
        (Some(memory), Some(compute)) => format!(
            "Raising --max-batch from {limit} to {places} makes each step longer: memory bandwidth is at {}, \
             compute at {}.",
            percent(memory),
            percent(compute)
        ),
        _ => format!("Raise --max-batch from {limit} to {places}, as far as time per token stays good."),
    };
    vec![raise, format!("Or run {replicas} replicas with {limit} places each.")]
}

fn kv(case: &Case<'_>, figures: &Figures) -> Explanation {
    let facts = case.facts;
    let mut evidence = Vec::new();
    let queue = figures.ms(&[Segment::Queue]);
    if WaitsFor::of(facts) == WaitsFor::Kv {
        evidence.push(format!("Requests wait {} in the server's queue on average.", ms(queue)));
    }
    let preempted = figures.ms(&[Segment::Preempted]);
    if preempted > 0.0 {
        let times = facts.preemptions.map_or_else(String::new, |count| format!(" ({count} evictions)"));
        evidence.push(format!("They lose {} to eviction from the KV cache and recomputing{times}.", ms(preempted)));
    }
    if let Some(most) = facts.kv_usage_max {
        let mean = facts.kv_usage_mean.map_or_else(String::new, |mean| format!(", {} on average", percent(mean)));
        evidence.push(format!("The KV cache is {} full at most{mean}.", percent(most)));
    }
    if let (Some(running), Some(limit)) = (facts.running_mean, facts.batch_limit) {
        evidence.push(format!("{} requests run at a time, of {limit} that the batch has places for.", number(running)));
    }
    let mut advice = Vec::new();
    match facts.running_mean.filter(|running| *running > 0.0) {
        Some(running) if figures.slots_wanted > running => advice.push(format!(
            "Give it more --kv-memory: {} requests want room at a time and {} have it, so {} times as much.",
            number(figures.slots_wanted),
            number(running),
            number(figures.slots_wanted / running)
        )),
        _ => advice.push("Give it more --kv-memory.".into()),
    }
    advice.push("Or --kv-type q8, which halves what a token takes.".into());
    advice.push("Or a lower --max-context or max_tokens, so that each request takes less.".into());
    Explanation { id: "kv", title: "The KV cache is too small".into(), evidence, advice }
}

/// What prompts claim of the queue.
pub(super) fn behind_prompts(case: &Case<'_>) -> Vec<Part> {
    if WaitsFor::of(case.facts) == WaitsFor::Prompts { Part::both(Segment::Queue).to_vec() } else { Vec::new() }
}
