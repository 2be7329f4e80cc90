//! The instruments that requests and engine steps record into.
//!
//! Labels come from closed sets (operation, model, phase, state, reason, `error.type`): nothing that a client
//! sends becomes one, so the number of series is bounded. Series of closed sets exist from the start, so
//! that a first event is a step from 0 and not a new line.

use std::time::Duration;

use engine::StepReport;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter, UpDownCounter},
};

use super::{ActiveState, ClosedRequest, buckets, names, outcome::error_type};
use crate::ledger::{Outcome, Phase};

const OUTCOMES: [Outcome; 7] = [
    Outcome::Stop,
    Outcome::Length,
    Outcome::Cancelled,
    Outcome::Deadline,
    Outcome::Invalid,
    Outcome::Overloaded,
    Outcome::Error,
];

/// The instruments that requests and steps record into; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    request_duration: Histogram<f64>,
    first_token: Histogram<f64>,
    per_output_token: Histogram<f64>,
    phase: Histogram<f64>,
    inter_token: Histogram<f64>,
    active: UpDownCounter<i64>,
    tokens: Counter<u64>,
    finished: Counter<u64>,
    step: StepMetrics,
}

/// The instruments that the engine's thread records into.
#[derive(Debug, Clone)]
pub(super) struct StepMetrics {
    batch_size: Histogram<u64>,
    duration: Histogram<f64>,
    part: Histogram<f64>,
    tokens: Histogram<u64>,
    memory: Counter<u64>,
    operations: Counter<u64>,
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, description: &'static str, bounds: &[f64]| {
            let builder = meter.f64_histogram(name).with_description(description).with_unit("s");
            builder.with_boundaries(bounds.to_vec()).build()
        };
        let sizes = |name: &'static str, description: &'static str, unit: &'static str, bounds: &[f64]| {
            let builder = meter.u64_histogram(name).with_description(description).with_unit(unit);
            builder.with_boundaries(bounds.to_vec()).build()
        };
        let counter = |name: &'static str, description: &'static str, unit: &'static str| {
            meter.u64_counter(name).with_description(description).with_unit(unit).build()
        };
        let metrics = Self {
            request_duration: seconds(
                "gen_ai.server.request.duration",
                "Time from a request's head to the last byte of its answer",
                buckets::REQUEST,
            ),
            first_token: seconds(
                "gen_ai.server.time_to_first_token",
                "Time from a request's head to its first token, successes only",
                buckets::FIRST_TOKEN,
            ),
            per_output_token: seconds(
                "gen_ai.server.time_per_output_token",
                "Mean time of each token after the first, successes only",
                buckets::PER_TOKEN,
            ),
            phase: seconds("gateway.phase.duration", "Time that requests spend in each phase", buckets::PHASE),
            inter_token: seconds(
                "gateway.inter_token.duration",
                "Time between two tokens of one answer",
                buckets::INTER_TOKEN,
            ),
            active: meter
                .i64_up_down_counter("gateway.requests.active")
                .with_description("Requests in the gateway now")
                .with_unit("{request}")
                .build(),
            tokens: counter("gateway.tokens", "Tokens of prompts and answers", "{token}"),
            finished: counter("gateway.requests.finished", "Requests by how they ended", "{request}"),
            step: StepMetrics {
                batch_size: sizes(
                    "engine.batch.size",
                    "Sequences computed together in one step",
                    "{sequence}",
                    buckets::BATCH,
                ),
                duration: seconds("engine.step.duration", "Time of one engine step", buckets::STEP),
                part: seconds(
                    "engine.step.part.duration",
                    "Time of the consecutive parts of one engine step",
                    buckets::STEP_PART,
                ),
                tokens: sizes(
                    "engine.step.tokens",
                    "Tokens computed in one step, by what for: of prompts and what was lost, or of answers",
                    "{token}",
                    buckets::STEP_TOKENS,
                ),
                memory: counter("engine.step.memory", "Bytes that steps had to read and write", "By"),
                operations: counter(
                    "engine.step.operations",
                    "Operations of the linear layers in steps, two to a multiply-add",
                    "{operation}",
                ),
            },
        };
        metrics.show_zeros();
        metrics
    }

    fn show_zeros(&self) {
        for state in [ActiveState::Waiting, ActiveState::Running] {
            self.active.add(0, &[state_label(state)]);
        }
        for direction in ["input", "output"] {
            self.tokens.add(0, &[KeyValue::new("direction", direction)]);
        }
        self.step.memory.add(0, &[]);
        self.step.operations.add(0, &[]);
        for outcome in OUTCOMES {
            self.finished.add(0, &[KeyValue::new("reason", outcome.as_str())]);
        }
    }

    /// Records a closed request.
    pub(super) fn finish(&self, operation: &'static str, request: &ClosedRequest<'_>) {
        self.finished.add(1, &[KeyValue::new("reason", request.outcome.as_str())]);
        let usage = request.ledger.stamps.usage;
        self.tokens.add(u64::from(usage.prompt_tokens), &[KeyValue::new("direction", "input")]);
        self.tokens.add(u64::from(usage.completion_tokens), &[KeyValue::new("direction", "output")]);
        let Some(closed) = request.ledger.closed else { return };
        for interval in request.ledger.intervals(closed) {
            let time = interval.end.saturating_duration_since(interval.start);
            self.phase.record(time.as_secs_f64(), &[phase_label(interval.phase)]);
        }
        let labels = request_labels(operation, request);
        let total = closed.saturating_duration_since(request.ledger.started);
        self.request_duration.record(total.as_secs_f64(), &labels);
        if matches!(request.outcome, Outcome::Stop | Outcome::Length) {
            if let Some(time) = request.ledger.time_to_first_token() {
                self.first_token.record(time.as_secs_f64(), &labels);
            }
            if let Some(time) = request.ledger.time_per_output_token() {
                self.per_output_token.record(time.as_secs_f64(), &labels);
            }
        }
    }

    pub(super) fn inter_token(&self, gap: Duration) {
        self.inter_token.record(gap.as_secs_f64(), &[]);
    }

    /// What the engine's thread needs.
    pub(super) fn step(&self) -> StepMetrics {
        self.step.clone()
    }

    /// Counts a request as active until the guard is dropped.
    pub(super) fn active(&self) -> ActiveRequest {
        let guard = ActiveRequest { gauge: self.active.clone(), state: ActiveState::Waiting };
        guard.gauge.add(1, &[state_label(guard.state)]);
        guard
    }
}

impl StepMetrics {
    pub(super) fn record(&self, report: &StepReport) {
        self.batch_size.record(report.sequences as u64, &[]);
        self.duration.record(report.duration.as_secs_f64(), &[]);
        for (part, time) in
            [("plan", report.plan), ("forward", report.forward), ("sample", report.sample), ("send", report.send)]
        {
            self.part.record(time.as_secs_f64(), &[KeyValue::new("part", part)]);
        }
        for (kind, tokens) in [("prefill", report.prefill_tokens), ("decode", report.decode_tokens)] {
            self.tokens.record(tokens as u64, &[KeyValue::new("kind", kind)]);
        }
        self.memory.add(report.work.bytes, &[]);
        self.operations.add(report.work.operations, &[]);
    }
}

/// One request's share of `gateway.requests.active`.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    gauge: UpDownCounter<i64>,
    state: ActiveState,
}

impl ActiveRequest {
    /// Counts it as running from now on.
    pub(super) fn run(&mut self) {
        self.gauge.add(-1, &[state_label(self.state)]);
        self.state = ActiveState::Running;
        self.gauge.add(1, &[state_label(self.state)]);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.gauge.add(-1, &[state_label(self.state)]);
    }
}

fn request_labels(operation: &'static str, request: &ClosedRequest<'_>) -> Vec<KeyValue> {
    let mut labels =
        vec![KeyValue::new(names::OPERATION, operation), KeyValue::new(names::PROVIDER, names::LOCAL_PROVIDER)];
    labels.extend(request.facts.model.clone().map(|model| KeyValue::new(names::REQUEST_MODEL, model)));
    labels.extend(error_type(request.outcome, request.facts).map(|kind| KeyValue::new(names::ERROR_TYPE, kind)));
    labels
}

fn phase_label(phase: Phase) -> KeyValue {
    KeyValue::new("phase", phase.as_str())
}

fn state_label(state: ActiveState) -> KeyValue {
    let state = match state {
        ActiveState::Waiting => "waiting",
        ActiveState::Running => "running",
    };
    KeyValue::new("state", state)
}
