//! What the worker hands its steps to: a device that computes them, and draws the tokens, on its own time.
//!
//! Steps are computed in the order of their launch, and so is everything else that is told in between: what a step
//! under way reads or writes, be it KV blocks or slots, is done before what is launched or begun after it.

use std::time::{Duration, Instant};

use super::{ModelSizes, StepBatch};
use crate::{error::EngineError, generation::Sampling, sampling::Sampled};

/// Computes steps and draws tokens; keeps what drawing needs of each sequence in a slot.
pub trait Executor: Send {
    /// What decides about the work of a step.
    fn sizes(&self) -> ModelSizes;

    /// Steps that may be under way at once: 1, or 2 where the device computes on its own. Only where it is more than 1
    /// are there [`PENDING`](super::PENDING) tokens, and only where the worker is to guess are there guesses, one step
    /// at a time.
    fn depth(&self) -> usize;

    /// A sequence begins in `slot` (small numbers, reused): what was there is forgotten. Whoever cannot have it loses
    /// this request alone, and the slot stays free.
    fn begin(
        &mut self,
        slot: usize,
        sampling: Sampling,
        logprobs: Option<u8>,
        prompt: &[u32],
    ) -> Result<(), EngineError>;

    /// The sequence in `slot` is over. It may be in steps under way still: nobody wants what these draw for it.
    fn end(&mut self, slot: usize);

    /// Starts a step, or computes it where there is only one at a time. After an error it is not under way.
    fn launch(&mut self, batch: &StepBatch) -> Result<(), EngineError>;

    /// Waits for the oldest step under way, which after that is none, also where it failed.
    fn land(&mut self) -> Result<Landed, EngineError>;
}

/// What came of a step.
#[derive(Debug, Clone)]
pub struct Landed {
    /// For each sequence of the batch, in order: its next tokens (one per row whose logits were wanted, as long as it
    /// was guessed right); empty where none was due, or where no logit was finite.
    pub drawn: Vec<Vec<Sampled>>,
    /// When the forward was done, as the host saw it; not before its launch.
    pub computed: Instant,
    /// When the tokens were known to the host; not before that.
    pub sampled: Instant,
    /// How long the device itself computed, where it says so.
    pub device: Option<Duration>,
}
