//! Requests that came to no good end: counted by why and by where, and in no time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::observation::Observation;

/// Failures of one class that ended in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    /// Why, as the client says, or else the server.
    pub class: String,
    /// The server's phase, or else how far the answer had come.
    pub ended_in: String,
    /// How many.
    pub count: u64,
}

impl FailureCount {
    /// Whether the server refused because it had too much to do.
    pub fn is_refusal(&self) -> bool {
        ["http_429", "http_503", "overloaded", "rate_limited", "model_loading"].contains(&self.class.as_str())
    }
}

/// Classes told apart; the rest are counted as one, so that hostile input does not grow the report.
const CLASSES: usize = 50;

/// The failures among `observations`, most frequent first.
pub(super) fn failures<'a>(observations: impl Iterator<Item = &'a Observation>) -> Vec<FailureCount> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for observation in observations {
        let Some(class) = observation.failure() else { continue };
        let key = (class, ended_in(observation));
        let key = if counts.len() < CLASSES || counts.contains_key(&key) { key } else { ("other", "various") };
        *counts.entry(key).or_default() += 1;
    }
    let mut counts: Vec<FailureCount> = counts
        .into_iter()
        .map(|((class, ended_in), count)| FailureCount { class: class.into(), ended_in: ended_in.into(), count })
        .collect();
    counts.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    counts
}

fn ended_in(observation: &Observation) -> &'static str {
    if let Some(phase) = observation.server.as_ref().and_then(|server| server.last_phase()) {
        return phase.name();
    }
    match &observation.client {
        Some(client) if client.first.is_some() => "amid the answer",
        Some(_) => "before any text",
        None => "an unknown phase",
    }
}
