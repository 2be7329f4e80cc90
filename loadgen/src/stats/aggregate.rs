//! Records in, counts and distributions kept: memory does not grow with the run's length.
//!
//! Two rules decide what counts. Times: a request sent within the window and answered whole, whenever it
//! ended. Rates: what happened within the window (answers that ended, tokens that arrived), whenever it was
//! sent. A failed request is in neither.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use crate::record::{ErrorClass, RequestRecord};

/// The most phases a server may name before further ones are ignored.
const PHASE_LIMIT: usize = 16;

/// A stretch of the run, in microseconds since its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first instant inside.
    pub start_us: u64,
    /// The first instant after it.
    pub end_us: u64,
}

impl Window {
    fn contains(&self, at_us: u64) -> bool {
        (self.start_us..self.end_us).contains(&at_us)
    }

    fn overlap_us(&self, from: u64, to: u64) -> u64 {
        to.min(self.end_us).saturating_sub(from.max(self.start_us))
    }
}

/// Failures of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// The class.
    pub class: ErrorClass,
    /// How many.
    pub count: u64,
    /// What the first one said.
    pub example: String,
}

/// What one window of a run comes to.
#[derive(Debug, Clone)]
pub struct Aggregate {
    pub(super) window: Window,
    pub(super) ttft: Histogram,
    pub(super) tpot: Histogram,
    pub(super) gap: Histogram,
    pub(super) latency: Histogram,
    pub(super) ttft_from_schedule: Histogram,
    pub(super) latency_from_schedule: Histogram,
    pub(super) phases: BTreeMap<String, Histogram>,
    /// Client latency minus the server's total.
    pub(super) outside: Histogram,
    /// Client latency of requests that came with a ledger.
    pub(super) with_ledger: Histogram,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) interrupted: u64,
    pub(super) cut: u64,
    pub(super) errors: BTreeMap<ErrorClass, (u64, String)>,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) events: u64,
    pub(super) without_usage: u64,
    /// How many answers claimed what cannot be, and what the first said.
    pub(super) implausible: (u64, Option<String>),
    pub(super) traces_joined: u64,
    pub(super) rate: Rate,
}

/// What happened within the window, for rates.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    pub(super) ended: u64,
    pub(super) output_tokens: f64,
    pub(super) prompt_tokens: u64,
    pub(super) in_flight_us: u64,
}

impl Aggregate {
    /// Nothing yet, for `window`.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            ttft: Histogram::default(),
            tpot: Histogram::default(),
            gap: Histogram::default(),
            latency: Histogram::default(),
            ttft_from_schedule: Histogram::default(),
            latency_from_schedule: Histogram::default(),
            phases: BTreeMap::new(),
            outside: Histogram::default(),
            with_ledger: Histogram::default(),
            succeeded: 0,
            failed: 0,
            interrupted: 0,
            cut: 0,
            errors: BTreeMap::new(),
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            events: 0,
            without_usage: 0,
            implausible: (0, None),
            traces_joined: 0,
            rate: Rate::default(),
        }
    }

    /// Successful requests, of those sent within the window, with at least one event with text.
    pub fn first_tokens(&self) -> u64 {
        self.ttft.count()
    }

    /// Requests sent within the window, however they ended.
    pub(super) fn requests(&self) -> u64 {
        self.succeeded + self.failed + self.interrupted + self.cut
    }

    /// Ends the window at `end_us`, unless it ends before.
    ///
    /// Every record added until now must have ended by then, or its part beyond stays counted.
    pub fn end_at(&mut self, end_us: u64) {
        self.window.end_us = self.window.end_us.min(end_us);
    }

    /// Takes one request into account.
    pub fn add(&mut self, record: &RequestRecord) {
        self.rate.in_flight_us += self.window.overlap_us(record.sent_us, record.end_us);
        if record.succeeded() {
            self.add_rate(record);
        }
        if record.sent_us < self.window.start_us {
            return;
        }
        match &record.error {
            None => self.add_success(record),
            Some(failure) if failure.class == ErrorClass::Interrupted => self.interrupted += 1,
            Some(failure) if failure.class == ErrorClass::Cut => self.cut += 1,
            Some(failure) => {
                self.failed += 1;
                self.errors.entry(failure.class).or_insert_with(|| (0, failure.message.clone())).0 += 1;
            }
        }
    }

    fn add_rate(&mut self, record: &RequestRecord) {
        if self.window.contains(record.end_us) {
            self.rate.ended += 1;
        }
        if record.first_content_us().is_some_and(|at| self.window.contains(at)) {
            self.rate.prompt_tokens += record.usage.map_or(0, |usage| usage.prompt_tokens);
        }
        // The server's count is the truth; the events only say when its tokens arrived.
        let seen: u64 = record.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        let inside: u64 = record
            .chunks
            .iter()
            .filter(|chunk| self.window.contains(chunk.at_us))
            .map(|chunk| u64::from(chunk.tokens))
            .sum();
        if seen > 0 {
            self.rate.output_tokens += record.output_tokens() as f64 * inside as f64 / seen as f64;
        }
    }

    fn add_success(&mut self, record: &RequestRecord) {
        self.succeeded += 1;
        if let Some(ttft) = record.ttft() {
            self.ttft.record(ttft);
            self.ttft_from_schedule.record(ttft + record.send_delay());
        }
        if let Some(tpot) = record.tpot() {
            self.tpot.record(tpot);
        }
        record.gaps().for_each(|gap| self.gap.record(gap));
        self.latency.record(record.latency());
        self.latency_from_schedule.record(record.latency() + record.send_delay());
        match record.usage {
            Some(usage) => {
                self.prompt_tokens += usage.prompt_tokens;
                self.cached_tokens += usage.cached_tokens;
            }
            None => self.without_usage += 1,
        }
        if let Some(claim) = &record.implausible {
            self.implausible.0 += 1;
            self.implausible.1.get_or_insert_with(|| claim.clone());
        }
        self.output_tokens += record.output_tokens();
        self.events += record.chunks.len() as u64;
        self.traces_joined += u64::from(record.server_trace_id.as_deref() == Some(&record.trace_id));
        self.add_ledger(record);
    }

    fn add_ledger(&mut self, record: &RequestRecord) {
        let Some(timings) = &record.timings else { return };
        for (name, value) in &timings.phases {
            let Some(time) = from_millis(*value) else { continue };
            if let Some(histogram) = self.phases.get_mut(name) {
                histogram.record(time);
            } else if self.phases.len() < PHASE_LIMIT {
                self.phases.entry(name.clone()).or_default().record(time);
            }
        }
        if let Some(total) = from_millis(timings.total_ms) {
            self.with_ledger.record(record.latency());
            self.outside.record(record.latency().saturating_sub(total));
        }
    }
}

/// A time a server reports; none when it is not a sane one.
fn from_millis(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value / 1e3).ok()
}
