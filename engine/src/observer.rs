//! What an engine tells of its steps: who is in one before it is computed, and afterwards what it took.
//!
//! Where the device computes on its own, steps overlap: a step may begin before the one before is told to be
//! computed, and the times of several may sum to more than passed. They begin and end in the same order all the same.

use std::time::{Duration, Instant};

use crate::model::Work;

/// A step that is planned and about to be computed.
#[derive(Debug, Clone)]
pub struct StepStart {
    /// Its number, from 1 on.
    pub number: u64,
    /// When planning began.
    pub started: Instant,
    /// The [tags](crate::GenerationRequest::tag) of its sequences, of those that have one.
    pub tags: Vec<u64>,
    /// Of these, the tags of sequences that are in a step for the first time.
    pub new_tags: Vec<u64>,
}

/// A step that was computed. Its parts are consecutive and sum to its duration.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Which.
    pub start: StepStart,
    /// From planning to the last event sent.
    pub duration: Duration,
    /// Choosing sequences and laying out their rows.
    pub plan: Duration,
    /// The model's forward, with the wait for its turn where steps overlap.
    pub forward: Duration,
    /// How long the device computed, where it says so: no part of the duration, but what of it was the device's.
    pub device: Option<Duration>,
    /// Drawing tokens from logits, until they are known here.
    pub sample: Duration,
    /// Turning them into text, and handing events to readers.
    pub send: Duration,
    /// What the forward had to move and to compute.
    pub work: Work,
    /// Sequences in the step.
    pub sequences: usize,
    /// Tokens of prompts, and of what was lost and computed again.
    pub prefill_tokens: usize,
    /// Tokens of answers, guessed ones included.
    pub decode_tokens: usize,
    /// KV blocks in use while it was computed.
    pub kv_blocks_used: usize,
    /// KV blocks there are.
    pub kv_blocks_total: usize,
}

/// Told of every step, on the engine's thread: must be quick.
pub trait StepObserver: Send {
    /// A step is about to be computed.
    fn begun(&mut self, _step: &StepStart) {}

    /// It was computed, and what came of it is sent; or it failed, and its requests were told.
    fn computed(&mut self, report: &StepReport);
}

impl<F: FnMut(&StepReport) + Send> StepObserver for F {
    fn computed(&mut self, report: &StepReport) {
        self(report);
    }
}

impl StepReport {
    /// How long it was computed for: by the device's own account, or by what the host saw of it.
    pub fn computing(&self) -> Duration {
        self.device.unwrap_or(self.forward)
    }

    /// Of a step that begins; filled in as it goes on.
    pub(crate) fn new(number: u64, started: Instant) -> Self {
        Self {
            start: StepStart { number, started, tags: Vec::new(), new_tags: Vec::new() },
            duration: Duration::ZERO,
            plan: Duration::ZERO,
            forward: Duration::ZERO,
            device: None,
            sample: Duration::ZERO,
            send: Duration::ZERO,
            work: Work::default(),
            sequences: 0,
            prefill_tokens: 0,
            decode_tokens: 0,
            kv_blocks_used: 0,
            kv_blocks_total: 0,
        }
    }
}

impl StepStart {
    /// A sequence is in it, for the first time or not.
    pub(crate) fn add(&mut self, tag: u64, first: bool) {
        if tag == 0 {
            return;
        }
        self.tags.push(tag);
        if first {
            self.new_tags.push(tag);
        }
    }
}
