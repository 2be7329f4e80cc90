//! One request while the worker has it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::mpsc;

use super::{attribution::StepShare, lookup, recompute::Recompute, slots::Slots};
use crate::{
    error::EngineError,
    generation::{Event, Failure, FinishReason, Finished, Sampling, Token},
    handle::{Job, Progress, Ticket},
    kv::{BlockKey, KeyChain},
    model::{Executor, PENDING},
    observer::StepReport,
    scheduler::{Chunk, Hold},
    text::{Text, TextStream},
};

/// A request's tokens, detokenizer and way back to its reader.
pub(super) struct Active {
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    /// Tokens of its answer that steps under way will give.
    pending: usize,
    pub(super) stream: TextStream,
    pub(super) ignore_eos: bool,
    /// The caller's name for it.
    pub(super) tag: u64,
    pub(super) prompt_tokens: usize,
    /// The most tokens of prompt and answer.
    pub(super) limit: usize,
    /// Until its first step.
    newcomer: Option<Newcomer>,
    /// From its first step on.
    pub(super) slot: Option<usize>,
    /// What its answer is guessed to go on with.
    guess: Vec<u32>,
    recompute: Recompute,
    chain: Option<KeyChain>,
    progress: Arc<Progress>,
    deadline: Option<Instant>,
    events: mpsc::Sender<Event>,
}

/// What is needed when a request's first step begins.
struct Newcomer {
    sampling: Sampling,
    logprobs: Option<u8>,
    /// Its place in the queue.
    _ticket: Ticket,
}

impl Active {
    /// A request whose prompt and answer may be `max_context` tokens together.
    pub(super) fn new(job: Job, text: &Text, max_context: usize) -> Self {
        let request = job.request;
        let prompt_tokens = request.prompt.len();
        Self {
            stream: text.stream(&request.stop),
            ignore_eos: request.ignore_eos,
            tag: request.tag,
            prompt_tokens,
            limit: prompt_tokens.saturating_add(request.max_tokens.max(1) as usize).min(max_context),
            tokens: request.prompt,
            pending: 0,
            newcomer: Some(Newcomer { sampling: request.sampling, logprobs: request.logprobs, _ticket: job.ticket }),
            slot: None,
            guess: Vec::new(),
            recompute: Recompute::default(),
            chain: job.chain,
            progress: job.progress,
            deadline: request.deadline,
            events: job.events,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether nobody reads the events any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the answer is as long as it may be.
    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= self.limit
    }

    /// Whether it was in no step yet.
    pub(super) fn is_new(&self) -> bool {
        self.newcomer.is_some()
    }

    /// Its slot: with its first step it begins in a free one.
    pub(super) fn slot(&mut self, slots: &mut Slots, executor: &mut dyn Executor) -> Result<usize, EngineError> {
        let slot = self.slot.unwrap_or_else(|| slots.take());
        if let Some(newcomer) = self.newcomer.take() {
            let begun = executor.begin(slot, newcomer.sampling, newcomer.logprobs, &self.tokens);
            begun.inspect_err(|_| slots.give_back(slot))?;
            self.slot = Some(slot);
        }
        Ok(slot)
    }

    /// Whether what comes next is part of its answer: neither of its prompt, nor of what it lost.
    fn answers(&self) -> bool {
        self.tokens.len() + self.pending > self.prompt_tokens && !self.recompute.is_due()
    }

    /// Guesses up to `most` tokens that its answer may go on with; gives their number. One token more must fit
    /// into what it may be, and into the channel, beside the end of the stream.
    pub(super) fn guess(&mut self, most: usize) -> usize {
        let room = (self.limit - self.tokens.len()).min(self.events.capacity().saturating_sub(1));
        let most = if self.answers() { most.min(room.saturating_sub(1)) } else { 0 };
        self.guess = lookup::guess(&self.tokens, most);
        self.guess.len()
    }

    /// What it computes in the step: known tokens, or the one that the step before draws, then guessed ones.
    pub(super) fn step_tokens(&mut self, chunk: &Chunk) -> Vec<u32> {
        self.guess.truncate(chunk.guessed);
        let known = (chunk.start..chunk.start + chunk.tokens).map(|position| self.tokens.get(position));
        known.map(|token| *token.unwrap_or(&PENDING)).chain(self.guess.iter().copied()).collect()
    }

    /// A step that began at `started` is under way with this part of it; the first begins where the cache ends.
    /// Gives how many tokens of it go into its prompt, or into what it lost.
    pub(super) fn launched(&mut self, chunk: &Chunk, started: Instant) -> usize {
        let prefill = if self.answers() { 0 } else { chunk.tokens };
        self.pending += usize::from(chunk.samples);
        self.recompute.launch(chunk.start + chunk.tokens);
        let mut record = self.progress.record();
        record.queueing.planned(None, started);
        record.time.begin(started);
        record.stamps.steps += 1;
        if record.stamps.scheduled.is_none() {
            record.stamps.scheduled = Some(started);
            record.stamps.usage.cached_tokens = chunk.start as u32;
        }
        prefill
    }

    /// A plan was made at that instant in which it did not come to its first step.
    pub(super) fn held(&self, hold: Hold, now: Instant) {
        if self.is_new() {
            self.progress.record().queueing.planned(Some(hold), now);
        }
    }

    /// It lost its blocks.
    pub(super) fn preempted(&mut self, now: Instant) {
        self.recompute.lose();
        self.progress.record().time.set_preempted(true, now);
    }

    /// A step has landed, with or without a part of it, and this is its share.
    pub(super) fn stepped(&self, step: &StepReport, now: Instant, share: StepShare) {
        let time = &mut self.progress.record().time;
        time.step(step.start.started, now, share);
        if share.takes_part {
            time.took_part(step);
        }
    }

    /// Its part of a step has landed, and gave `sampled` tokens: in these blocks, or in some that it lost since.
    pub(super) fn landed(&mut self, chunk: &Chunk, sampled: usize, blocks: &[u32], now: Instant) {
        let end = chunk.start + chunk.tokens + sampled.saturating_sub(1);
        self.pending -= usize::from(chunk.samples);
        if blocks.is_empty() {
            return self.recompute.land_in_vain(end);
        }
        let time = &mut self.progress.record().time;
        if self.recompute.land(end) && time.is_preempted() {
            time.set_preempted(false, now);
        }
    }

    /// Looks whether the reader keeps up; gives the new state when it changed. It fell behind when there is no
    /// room for a token beside the end of the stream, and caught up when half of the room is there again: what
    /// was taken from a paused sequence is computed again, and that not for a single token. What steps under way will
    /// give needs its room, too.
    pub(super) fn update_stall(&mut self, now: Instant) -> Option<bool> {
        let time = &mut self.progress.record().time;
        let room = self.pending + if time.is_stalled() { 1 + self.events.max_capacity() / 2 } else { 2 };
        let full = || self.events.capacity() < room;
        let stalled = full() && {
            self.progress.stalled.store(true, Ordering::Release);
            // The reader may have gone on just before it could see the flag.
            let still = full();
            self.progress.stalled.store(still, Ordering::Release);
            still
        };
        (stalled != time.is_stalled()).then(|| {
            time.set_stalled(stalled, now);
            stalled
        })
    }

    /// A token became known; gives the keys of the blocks that it fills.
    pub(super) fn sampled(&mut self, id: u32, now: Instant) -> Vec<BlockKey> {
        self.tokens.push(id);
        let generated = (self.tokens.len() - self.prompt_tokens) as u32;
        let mut record = self.progress.record();
        if record.stamps.first_token.is_none() {
            record.stamps.first_token = Some(now);
            record.time.first_token(now);
        }
        record.stamps.last_token = Some(now);
        record.stamps.usage.completion_tokens = generated;
        drop(record);
        self.chain.as_mut().map_or_else(Vec::new, |chain| chain.extend(&self.tokens))
    }

    /// Sends a token; there is room, as paused sequences are not sampled, or the reader has left.
    pub(super) fn send(&self, token: Token) {
        let _ = self.events.try_send(Event::Token(token));
    }

    pub(super) fn finish(mut self, reason: FinishReason) {
        let text = self.stream.finish();
        let usage = {
            let mut record = self.progress.record();
            record.end(Instant::now());
            record.stamps.usage
        };
        let _ = self.events.try_send(Event::Finished(Finished { reason, text, usage }));
    }

    pub(super) fn fail(self, message: &str) {
        self.progress.record().end(Instant::now());
        let _ = self.events.try_send(Event::Failed(Failure { message: message.to_owned() }));
    }
}
