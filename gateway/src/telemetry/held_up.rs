//! What the engine says of the phases it had a request in: what the steps were like, and what held it up.
//!
//! A step's span is made of a few steps a second only; what is said here is of all that a request was in.

use std::time::Duration;

use engine::{Blocked, Interruption, InterruptionCause, PhaseSteps};
use opentelemetry::KeyValue;

use super::{encode::SpanWriter, names, span_times};
use crate::ledger::{Interval, Ledger};

/// What kept it in the queue, each that did, and which of them did longest.
pub(super) fn describe_queue(span: &mut SpanWriter<'_>, blocked: Blocked) {
    let causes = [
        ("batch", names::BLOCKED_BATCH_MS, blocked.batch),
        ("kv", names::BLOCKED_KV_MS, blocked.kv),
        ("step_budget", names::BLOCKED_STEP_BUDGET_MS, blocked.step_budget),
        ("fairness", names::BLOCKED_FAIRNESS_MS, blocked.fairness),
    ];
    let causes = causes.into_iter().filter(|(.., time)| !time.is_zero());
    for (_, name, time) in causes.clone() {
        span.attribute(name, &milliseconds(time));
    }
    span.attribute_if(names::BLOCKED_BY, causes.max_by_key(|(.., time)| *time).map(|(cause, ..)| cause));
}

/// What the steps of one phase were like, and the time in it that went elsewhere.
pub(super) fn describe_steps(span: &mut SpanWriter<'_>, steps: &PhaseSteps) {
    let thousandths = |value: f64| (value * 1e3).round() / 1e3;
    span.attribute(names::STEPS, &i64::from(steps.steps));
    span.attribute_if(names::MEAN_BATCH, steps.mean_batch().map(thousandths));
    span.attribute_if(names::MEAN_KV_USE, steps.mean_kv_use().map(thousandths));
    span.attribute(names::STALL_MS, &milliseconds(steps.stall));
    span.attribute(names::PREEMPTED_MS, &milliseconds(steps.preempted));
    span.attribute(names::INTERFERENCE_MS, &milliseconds(steps.interference));
}

/// The interruptions that began or ended in `phase`, as events.
pub(super) fn events(span: &mut SpanWriter<'_>, ledger: &Ledger, phase: Interval) {
    let at = |instant| span_times::truncated(ledger.wall(instant));
    let inside = |instant: &_| phase.start <= *instant && *instant < phase.end;
    for Interruption { cause, from, until } in &ledger.stamps.interruptions {
        let (began, time) = match cause {
            InterruptionCause::Preempted => (names::PREEMPTED, names::PREEMPTED_MS),
            InterruptionCause::Stalled => (names::STALLED, names::STALL_MS),
        };
        let lasted = until.map(|until| KeyValue::new(time, milliseconds(until.saturating_duration_since(*from))));
        if inside(from) {
            span.event(began, at(*from), lasted.as_slice());
        }
        if let Some(until) = until.filter(inside) {
            span.event(names::RESUMED, at(until), lasted.as_slice());
        }
    }
}

/// Exact to the nanosecond, without the noise of seconds made into milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
