//! When things happened to one generation, and what its time went into.

use std::time::{Duration, Instant};

use crate::{generation::Usage, observer::StepReport};

/// When things happened to one generation, readable at any time, also after it was dropped.
#[derive(Debug, Clone, Default)]
pub struct Stamps {
    /// Handed to the engine.
    pub queued: Option<Instant>,
    /// First part of a step.
    pub scheduled: Option<Instant>,
    /// First token sampled.
    pub first_token: Option<Instant>,
    /// Last token sampled so far.
    pub last_token: Option<Instant>,
    /// Counted so far.
    pub usage: Usage,
    /// Steps this generation took part in.
    pub steps: u32,
    /// What kept it in the queue.
    pub blocked: Blocked,
    /// Paused because its reader was slow; this and the two below count no moment twice.
    pub stall: Duration,
    /// Between losing its blocks and having recomputed what was in them.
    pub preempted: Duration,
    /// Step time spent on other requests' prompts (or recomputation) since this one was first scheduled.
    pub interference: Duration,
    /// When it could not go on: the first [`Stamps::MAX_INTERRUPTIONS`].
    pub interruptions: Vec<Interruption>,
    /// How many interruptions came after those.
    pub more_interruptions: u32,
    /// Up to the first token.
    pub prefill: PhaseSteps,
    /// After it.
    pub decode: PhaseSteps,
}

impl Stamps {
    /// The most interruptions that are kept.
    pub const MAX_INTERRUPTIONS: usize = 32;
}

/// Time in the queue by what was missing; together never more than the time between `queued` and `scheduled`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocked {
    /// A place in the batch.
    pub batch: Duration,
    /// Free KV blocks, for it or for one before it.
    pub kv: Duration,
    /// Tokens in the step.
    pub step_budget: Duration,
    /// Its turn: younger requests were let go first.
    pub fairness: Duration,
}

impl Blocked {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.batch + self.kv + self.step_budget + self.fairness
    }
}

/// A time in which a generation could not go on; those of different causes may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interruption {
    /// Why.
    pub cause: InterruptionCause,
    /// When it began.
    pub from: Instant,
    /// When it went on; nothing while it does not.
    pub until: Option<Instant>,
}

/// Why a generation could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptionCause {
    /// It lost its blocks, and what was in them had to be computed again.
    Preempted,
    /// Its reader was slow.
    Stalled,
}

/// What the steps of one phase were like for a generation, and what held it up in that phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseSteps {
    /// Steps it took part in.
    pub steps: u32,
    /// Sequences in these, summed.
    pub sequences: u64,
    /// Used share of the KV blocks in these, summed in thousandths.
    pub kv_thousandths: u64,
    /// As the sums in [`Stamps`], of this phase.
    pub stall: Duration,
    /// Likewise.
    pub preempted: Duration,
    /// Likewise.
    pub interference: Duration,
}

impl PhaseSteps {
    pub(crate) fn add(&mut self, step: &StepReport) {
        self.steps += 1;
        self.sequences += step.sequences as u64;
        self.kv_thousandths += (1000 * step.kv_blocks_used / step.kv_blocks_total.max(1)) as u64;
    }

    /// Sequences in a step, on average; nothing where there was no step.
    pub fn mean_batch(&self) -> Option<f64> {
        self.mean(self.sequences as f64)
    }

    /// Used share of the KV blocks, on average, in [0, 1]; nothing where there was no step.
    pub fn mean_kv_use(&self) -> Option<f64> {
        self.mean(self.kv_thousandths as f64 / 1000.0)
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.steps > 0).then(|| sum / f64::from(self.steps))
    }
}
