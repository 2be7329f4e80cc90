//! The model at work: prompts, answers, and prompts that hold up answers.

use super::queue::behind_prompts;
use super::{Case, Claim, Explanation, Figures, Part, Rule, Segment};
use crate::server::ServerFacts;
use crate::stats::Thresholds;
use crate::words::{ms, number, percent};

/// From this part of the machine's limit on, decoding runs at it.
const AT_LIMIT: f64 = 0.6;

/// Planning and sampling take this part of a step where they are worth looking at.
const OVERHEAD: f64 = 0.2;

/// A cache that finds less of the prompts has more to give.
const RARELY_CACHED: f64 = 0.5;

/// Prompts take the time.
pub(super) const PREFILL: Rule = Rule {
    claim: |case| {
        let work = [Segment::Prefill, Segment::Interference].map(Part::First);
        Some(Claim {
            waiting: behind_prompts(case),
            work: work.into_iter().chain([Part::Rest(Segment::Prefill)]).collect(),
        })
    },
    explain: prefill,
};

/// Other requests' prompts take the time of answers.
pub(super) const INTERFERENCE: Rule = Rule {
    claim: |_| Some(Claim { waiting: vec![Part::Rest(Segment::Interference)], work: Vec::new() }),
    explain: interference,
};

/// Answers take the time.
pub(super) const DECODE: Rule = Rule {
    claim: |_| Some(Claim { waiting: Vec::new(), work: Part::both(Segment::Decode).to_vec() }),
    explain: decode,
};

fn prefill(case: &Case<'_>, figures: &Figures) -> Explanation {
    let facts = case.facts;
    let own = figures.ms(&[Segment::Prefill]);
    let others = figures.first(Segment::Interference).ms;
    let mut evidence = vec![format!("A prompt takes {} to compute on average{}.", ms(own + others), shared(others))];
    let behind: f64 = if behind_prompts(case).is_empty() { 0.0 } else { figures.ms(&[Segment::Queue]) };
    if behind > 0.0 {
        evidence
            .push(format!("Before that it waits {} while other prompts are computed, not for a place.", ms(behind)));
    }
    let mut speed = None;
    if let Some(tokens) = figures.prompt_tokens {
        let cached = figures.cached_share.unwrap_or(0.0);
        let computed = tokens * (1.0 - cached);
        let found = figures
            .cached_share
            .map_or_else(String::new, |share| format!(", {} of them from the prefix cache", percent(share)));
        evidence.push(format!("Prompts have {} tokens on average{found}.", number(tokens)));
        if own + others > 0.0 && computed > 0.0 {
            speed = Some(computed / (own + others) * 1e3);
        }
    }
    if let Some(speed) = speed {
        evidence.push(format!("That is {speed:.0} prompt tokens per second for each request."));
    }
    Explanation {
        id: "prefill",
        title: "Computing prompts takes the time to the first token".into(),
        evidence,
        advice: prefill_advice(facts, figures, speed),
    }
}

fn shared(others: f64) -> String {
    if others > 0.0 { format!(", {} of it for other prompts in the same steps", ms(others)) } else { String::new() }
}

fn prefill_advice(facts: &ServerFacts, figures: &Figures, speed: Option<f64>) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(speed) = speed {
        let limit = Thresholds::TTFT.good_below_ms;
        advice.push(format!(
            "Shorten prompts: at this speed, up to {:.0} tokens are computed within the {limit} ms of a good first token.",
            speed * limit / 1e3
        ));
    }
    if let Some(share) = figures.cached_share.or(facts.prefix_cache_hit_rate).filter(|share| *share < RARELY_CACHED) {
        advice.push(format!(
            "Put what prompts have in common first, so that the prefix cache finds it: it finds {} now.",
            percent(share)
        ));
    }
    if let (Some(limit), Some(tokens)) = (facts.step_token_limit, figures.prompt_tokens)
        && tokens > limit
    {
        advice.push(format!(
            "Raise --max-step-tokens from {limit}: a prompt takes {} steps now. Answers beside it wait longer per step.",
            (tokens / limit).ceil()
        ));
    }
    advice.push("Or a faster machine: computing prompts is limited by arithmetic (more cores, or a GPU).".into());
    advice
}

fn interference(case: &Case<'_>, figures: &Figures) -> Explanation {
    let taken = figures.rest(Segment::Interference).ms;
    let own = figures.rest(Segment::Decode).ms;
    let facts = case.facts;
    let mut evidence = vec![format!(
        "While an answer is computed, {} go to other requests' prompts in the same steps, and {} to the answer.",
        ms(taken),
        ms(own)
    )];
    if let (Some(limit), Some(step)) = (facts.step_token_limit, facts.step_mean_ms) {
        evidence.push(format!("A step holds up to {limit} tokens and takes {} on average.", ms(step)));
    }
    if let (Some(prefill), Some(decode)) = (facts.prefill_tokens_per_s, facts.decode_tokens_per_s) {
        evidence.push(format!("Steps compute {prefill:.0} prompt tokens/s beside {decode:.0} answer tokens/s."));
    }
    let lower = match facts.step_token_limit.filter(|limit| *limit >= 2.0) {
        Some(limit) => format!("Lower --max-step-tokens from {limit} to {}", (limit / 2.0).floor()),
        None => "Lower --max-step-tokens".into(),
    };
    Explanation {
        id: "interference",
        title: "Other requests' prompts hold answers up".into(),
        evidence,
        advice: vec![
            format!("{lower}: each step spends less on prompts, which then take longer to their first token."),
            "Or send long prompts to a replica of their own.".into(),
        ],
    }
}

fn decode(case: &Case<'_>, figures: &Figures) -> Explanation {
    let facts = case.facts;
    let mut evidence = vec![format!(
        "Computing an answer takes {} on average{}.",
        ms(figures.ms(&[Segment::Decode])),
        per_token(figures)
    )];
    if let Some(batch) = facts.batch_mean {
        let limit = facts.batch_limit.map_or_else(String::new, |limit| format!(" of at most {limit}"));
        evidence.push(format!("A step computes {} sequences{limit}.", number(batch)));
    }
    let limits = facts.memory_bandwidth_utilization.zip(facts.compute_utilization);
    if let Some((memory, compute)) = limits {
        evidence.push(format!(
            "Steps use {} of the machine's memory bandwidth and {} of its arithmetic.",
            percent(memory),
            percent(compute)
        ));
    }
    let (id, title, advice) = match limits {
        Some((memory, compute)) if memory >= AT_LIMIT && memory >= compute => {
            ("decode_bandwidth", "Decoding runs at the limit of memory bandwidth", bandwidth_advice(facts))
        }
        Some((_, compute)) if compute >= AT_LIMIT => {
            ("decode_compute", "Decoding runs at the limit of the machine's arithmetic", compute_advice(facts))
        }
        Some(_) => {
            ("decode_overhead", "Decoding is slower than the machine allows", overhead_advice(facts, &mut evidence))
        }
        None => ("decode", "Computing answers takes the time", unknown_advice()),
    };
    Explanation { id, title: title.into(), evidence, advice }
}

fn per_token(figures: &Figures) -> String {
    let tpot = figures.tpot_ms.map(|tpot| format!("{} per token", ms(tpot.mean)));
    let tokens = figures.output_tokens.map(|tokens| format!("{} tokens", number(tokens)));
    let parts: Vec<String> = tokens.into_iter().chain(tpot).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn bandwidth_advice(facts: &ServerFacts) -> Vec<String> {
    let room = facts.batch_mean.zip(facts.batch_limit).filter(|(batch, limit)| batch * 2.0 <= *limit);
    let mut advice = vec![
        "Move fewer bytes per token: --quantize q8_0 or q4_k for the weights, --kv-type q8 for long contexts.".into(),
    ];
    if let Some((batch, limit)) = room {
        advice.push(format!(
            "Batch more: weights are read once per step, whatever its batch. It is {} of {limit}, so more users add \
             throughput at nearly the same time per token.",
            number(batch)
        ));
    }
    advice.push("Or a machine with more memory bandwidth. No setting makes this one read faster.".into());
    advice
}

fn compute_advice(facts: &ServerFacts) -> Vec<String> {
    let batch =
        facts.batch_mean.map_or_else(String::new, |batch| format!(" Each step computes {} sequences.", number(batch)));
    vec![
        format!("More cores or a GPU; --threads, if it is set below the cores there are.{batch}"),
        "Or spread the users over more replicas, so that fewer share a step.".into(),
    ]
}

fn overhead_advice(facts: &ServerFacts, evidence: &mut Vec<String>) -> Vec<String> {
    let mut advice = Vec::new();
    if let (Some(plan), Some(sample)) = (facts.plan_share, facts.sample_share) {
        evidence.push(format!("Planning takes {} of a step, sampling {}.", percent(plan), percent(sample)));
        if plan + sample >= OVERHEAD {
            advice.push(
                "Cut what is not the model: logprobs and penalties make sampling slow, many short requests planning."
                    .into(),
            );
        }
    }
    if let Some((batch, limit)) = facts.batch_mean.zip(facts.batch_limit).filter(|(batch, limit)| batch * 2.0 <= *limit)
    {
        advice.push(format!(
            "The batch is {} of {limit}: with more users, or more requests at once, a step does more work for little more time.",
            number(batch)
        ));
    }
    advice.push("See what else runs on the machine: neither its memory nor its arithmetic is in full use.".into());
    advice
}

fn unknown_advice() -> Vec<String> {
    vec!["Ask for shorter answers (max_tokens), --quantize the weights, or use a faster machine. Which of them helps most \
          depends on memory bandwidth and batch size, which a report of --json has."
        .into()]
}
