//! The rules' claims on the time that users wait, ranked: what holds the deployment back, and what would next.
//!
//! Two things make a claim count. Time beyond the limit of good counts for whatever it was spent on. Waiting
//! counts in full, even within good limits, where it makes up a large part of the time: nobody gains by it.
//! Computing within good limits is what the server is there for.

use std::cmp::Reverse;

use serde::Serialize;

use super::failures::FailureCount;
use super::figures::{Figures, StageFigures};
use super::rules::{Case, Explanation, FAILING, HEALTHY, Part, RULES, healthy, implausible};
use crate::server::ServerFacts;

/// Waiting that makes up less of the time is no bottleneck.
const ABNORMAL_SHARE: f64 = 0.25;

/// Waiting that is shorter is none either, in milliseconds.
const ABNORMAL_MS: f64 = 10.0;

/// One bottleneck: named, shown and answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Names it in JSON, such as `queue`.
    pub id: &'static str,
    /// Names it to people.
    pub title: String,
    /// The user-seen time it takes, in milliseconds per request.
    pub cost_ms: f64,
    /// Its part of the user-seen time, 0 to 1.
    pub share: f64,
    /// What it is ranked by: its waiting if that is abnormal, and its part in what lies beyond good. Absent for
    /// failures, which rank before all waiting: who was refused did not even get to wait.
    pub weight_ms: Option<f64>,
    /// The figures that show it, in sentences.
    pub evidence: Vec<String>,
    /// What to change.
    pub advice: Vec<String>,
}

/// The bottleneck and the runner-up.
pub(super) fn find(
    figures: Option<&Figures>,
    facts: Option<&ServerFacts>,
    failures: &[FailureCount],
) -> (Option<Finding>, Option<Finding>) {
    let none = ServerFacts::default();
    let case = Case { figures, facts: facts.unwrap_or(&none), failures };
    let mut findings: Vec<Finding> =
        FAILING.iter().filter_map(|rule| rule(&case)).map(|failing| Finding::costless(failing, None)).collect();
    if let Some(figures) = figures {
        let mut claims = claims(&case, figures);
        if findings.is_empty() && claims.iter().all(|finding| finding.weight_ms <= Some(0.0)) {
            findings.push(Finding::costless(healthy(figures), Some(0.0)));
            // Computing is what is left to grow once nothing else is in the way.
            claims.sort_by_key(|finding| Reverse(ordered(finding.cost_ms)));
        }
        findings.append(&mut claims);
    }
    let mut findings = findings.into_iter();
    (findings.next(), findings.next())
}

/// What the rules claim, heaviest first.
pub(super) fn claims(case: &Case<'_>, figures: &Figures) -> Vec<Finding> {
    let judged = RULES.iter().filter_map(|rule| {
        let claim = (rule.claim)(case)?;
        let waiting = sum(figures, &claim.waiting);
        let work = sum(figures, &claim.work);
        let cost_ms = waiting.ms + work.ms;
        let share = if figures.latency_ms.mean > 0.0 { cost_ms / figures.latency_ms.mean } else { 0.0 };
        let abnormal = waiting.ms >= ABNORMAL_MS && waiting.ms >= ABNORMAL_SHARE * figures.latency_ms.mean;
        let weight_ms = Some(work.beyond_good_ms + if abnormal { waiting.ms } else { waiting.beyond_good_ms });
        let Explanation { id, title, evidence, advice } = (rule.explain)(case, figures);
        let finding = Finding { id, title, cost_ms, share, weight_ms, evidence, advice };
        (cost_ms > 0.0).then_some(finding)
    });
    let mut findings: Vec<Finding> = judged.collect();
    findings.sort_by_key(|finding| Reverse((ordered(finding.weight_ms.unwrap_or(0.0)), ordered(finding.cost_ms))));
    findings
}

impl Finding {
    /// Itself, unless it says that all is well: of a server that says what cannot be, nobody knows.
    pub(super) fn doubted(self) -> Self {
        if self.id == HEALTHY { Self::costless(implausible(), Some(0.0)) } else { self }
    }

    fn costless(Explanation { id, title, evidence, advice }: Explanation, weight_ms: Option<f64>) -> Self {
        Self { id, title, cost_ms: 0.0, share: 0.0, weight_ms, evidence, advice }
    }
}

fn sum(figures: &Figures, parts: &[Part]) -> StageFigures {
    let mut sum = StageFigures::default();
    for part in parts {
        let StageFigures { ms, beyond_good_ms } = match *part {
            Part::First(segment) => figures.first(segment),
            Part::Rest(segment) => figures.rest(segment),
        };
        sum.ms += ms;
        sum.beyond_good_ms += beyond_good_ms;
    }
    sum
}

/// Nanoseconds, which have an order.
fn ordered(ms: f64) -> u128 {
    (ms * 1e6) as u128
}
