//! Requests that came to no good end: worse than any waiting.

use super::{Case, Explanation, Segment};
use crate::analysis::failures::FailureCount;
use crate::words::{ms, number, percent};

/// Fewer of all requests are no bottleneck.
const WORTH_NAMING: f64 = 0.01;

/// Refused because there is too much to do.
pub(super) fn overload(case: &Case<'_>) -> Option<Explanation> {
    let (count, share) = failed(case, FailureCount::is_refusal)?;
    let all = requests(case);
    let mut evidence = vec![format!(
        "{count} of {all} requests ({}) were refused: {}.",
        percent(share),
        classes(case, FailureCount::is_refusal)
    )];
    if let Some(figures) = case.figures {
        evidence.push(format!(
            "Those that were served waited {} in the queue on average.",
            ms(figures.ms(&[Segment::Queue]))
        ));
    }
    let facts = case.facts;
    if let (Some(max), Some(limit)) = (facts.waiting_max, facts.batch_limit) {
        evidence
            .push(format!("Up to {max} requests were waiting for one of {limit} places in the batch (--max-batch)."));
    }
    let served = 1.0 - share;
    let mut advice = Vec::new();
    if served > 0.0 {
        advice.push(format!(
            "Add capacity: {} of the load is served, so about {} times as much is needed for all of it (--max-batch, or replicas).",
            percent(served),
            number(1.0 / served)
        ));
    } else {
        advice.push("Add capacity (--max-batch, or replicas): none of the load is served.".into());
    }
    advice.push("Raise --max-queue if the load comes in bursts: requests then wait instead of being refused.".into());
    if case.failures.iter().any(|failure| ["http_429", "rate_limited"].contains(&failure.class.as_str())) {
        advice.push("Raise --requests-per-minute where callers may send more: some were over their rate.".into());
    }
    Some(Explanation { id: "overload", title: "The server refuses requests".into(), evidence, advice })
}

/// Failed for another reason.
pub(super) fn errors(case: &Case<'_>) -> Option<Explanation> {
    let other = |failure: &FailureCount| !failure.is_refusal();
    let (count, share) = failed(case, other)?;
    let all = requests(case);
    Some(Explanation {
        id: "errors",
        title: "Requests fail".into(),
        evidence: vec![format!("{count} of {all} requests ({}) failed: {}.", percent(share), classes(case, other))],
        advice: vec![
            "Look at one trace of each class, and at the server's log: what failed has no time worth tuning.".into(),
        ],
    })
}

/// How many failures of a kind there are, and their part of all requests, if that is worth naming.
fn failed(case: &Case<'_>, kind: fn(&FailureCount) -> bool) -> Option<(u64, f64)> {
    let count: u64 = case.failures.iter().filter(|failure| kind(failure)).map(|failure| failure.count).sum();
    let share = count as f64 / requests(case) as f64;
    (share >= WORTH_NAMING).then_some((count, share))
}

fn requests(case: &Case<'_>) -> u64 {
    let succeeded = case.figures.map_or(0, |figures| figures.requests as u64);
    succeeded + case.failures.iter().map(|failure| failure.count).sum::<u64>()
}

/// The classes of a kind with where they ended, at most three.
fn classes(case: &Case<'_>, kind: fn(&FailureCount) -> bool) -> String {
    let classes = case.failures.iter().filter(|failure| kind(failure)).take(3);
    let classes: Vec<String> =
        classes.map(|failure| format!("{} {} (ended in {})", failure.count, failure.class, failure.ended_in)).collect();
    classes.join(", ")
}
