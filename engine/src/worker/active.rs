//! One request while the worker has it.

use std::{
    slice::ChunksExactMut,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::mpsc;

use super::{attribution::StepShare, lookup};
use crate::{
    generation::{Event, Failure, FinishReason, Finished, Token},
    handle::{Job, Progress, Ticket},
    kv::{BlockKey, KeyChain},
    sampling::{Sampled, Sampler},
    scheduler::Chunk,
    text::{Text, TextStream},
};

/// A request's tokens, sampler, detokenizer and way back to its reader.
pub(super) struct Active {
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    sampler: Sampler,
    pub(super) stream: TextStream,
    pub(super) ignore_eos: bool,
    /// The caller's name for it.
    pub(super) tag: u64,
    /// Its part of the step that is being computed.
    pub(super) chunk: Option<Chunk>,
    /// What its answer is guessed to go on with.
    guess: Vec<u32>,
    chain: Option<KeyChain>,
    progress: Arc<Progress>,
    prompt_tokens: usize,
    max_tokens: usize,
    deadline: Option<Instant>,
    events: mpsc::Sender<Event>,
    /// Held until the first step.
    ticket: Option<Ticket>,
    /// Positions computed so far, and how many of them must be computed again before it is where it was.
    reached: usize,
    lost: usize,
}

impl Active {
    pub(super) fn new(job: Job, text: &Text) -> Self {
        let request = job.request;
        Self {
            sampler: Sampler::new(request.sampling, request.logprobs, &request.prompt),
            stream: text.stream(&request.stop),
            ignore_eos: request.ignore_eos,
            tag: request.tag,
            chunk: None,
            guess: Vec::new(),
            chain: job.chain,
            progress: job.progress,
            prompt_tokens: request.prompt.len(),
            tokens: request.prompt,
            max_tokens: request.max_tokens as usize,
            deadline: request.deadline,
            events: job.events,
            ticket: Some(job.ticket),
            reached: 0,
            lost: 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether nobody reads the events any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the answer is as long as was asked for.
    pub(super) fn is_full(&self) -> bool {
        self.generated() >= self.max_tokens
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Guesses up to `most` tokens that its answer may go on with; gives their number. One token more must fit
    /// into what was asked for, into the context, and into the channel, beside the end of the stream.
    pub(super) fn guess(&mut self, most: usize, max_context: usize) -> usize {
        let asked = self.max_tokens - self.generated();
        let room = asked.min(max_context - self.tokens.len()).min(self.events.capacity().saturating_sub(1));
        let answers = self.generated() > 0 && !self.progress.record().time.is_preempted();
        self.guess = if answers { lookup::guess(&self.tokens, most.min(room.saturating_sub(1))) } else { Vec::new() };
        self.guess.len()
    }

    /// What it computes in the step: known tokens, then guessed ones.
    pub(super) fn step_tokens(&mut self, chunk: &Chunk) -> Vec<u32> {
        self.guess.truncate(chunk.guessed);
        [&self.tokens[chunk.start..chunk.start + chunk.tokens], &self.guess].concat()
    }

    /// Draws its next tokens: one for each of its rows of logits, as long as it was guessed right.
    pub(super) fn draw(&mut self, rows: ChunksExactMut<'_, f32>) -> Vec<Sampled> {
        let mut sampled: Vec<Sampled> = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(token) = self.sampler.sample(row) else { break };
            sampled.push(token);
            if self.guess.get(sampled.len() - 1) != sampled.last().map(|token| &token.id) {
                break;
            }
        }
        sampled
    }

    /// Tokens of the step that go into its prompt, or into what it lost.
    pub(super) fn prefill_tokens(&self) -> usize {
        let answers = self.generated() > 0 && !self.progress.record().time.is_preempted();
        self.chunk.filter(|_| !answers).map_or(0, |chunk| chunk.tokens)
    }

    /// Looks whether the reader keeps up; gives the new state when it changed. It fell behind when there is no
    /// room for a token beside the end of the stream, and caught up when half of the room is there again: what
    /// was taken from a paused sequence is computed again, and that not for a single token.
    pub(super) fn update_stall(&mut self, now: Instant) -> Option<bool> {
        let time = &mut self.progress.record().time;
        let room = if time.is_stalled() { 1 + self.events.max_capacity() / 2 } else { 2 };
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

    /// It becomes part of a step that began at `started`; the first of its chunks begins where the cache ends.
    /// True the first time.
    pub(super) fn scheduled(&mut self, chunk: Chunk, started: Instant) -> bool {
        self.chunk = Some(chunk);
        let first = self.ticket.take().is_some();
        let mut record = self.progress.record();
        record.time.begin(started);
        record.stamps.steps += 1;
        if first {
            record.stamps.scheduled = Some(started);
            record.stamps.usage.cached_tokens = chunk.start as u32;
        }
        first
    }

    /// It lost its blocks.
    pub(super) fn preempted(&mut self, now: Instant) {
        self.lost = self.lost.max(self.reached);
        self.progress.record().time.set_preempted(true, now);
    }

    /// A step was computed, with or without a part for it.
    pub(super) fn stepped(&mut self, started: Instant, now: Instant, prefill: usize, tokens: usize) {
        let others_prefill = prefill - self.prefill_tokens();
        let time = &mut self.progress.record().time;
        time.step(started, now, StepShare { others_prefill, tokens });
        if let Some(chunk) = self.chunk.take() {
            self.reached = chunk.start + chunk.tokens;
            if time.is_preempted() && self.reached >= self.lost {
                self.lost = 0;
                time.set_preempted(false, now);
            }
        }
    }

    /// A token became known; gives the keys of the blocks that it fills.
    pub(super) fn sampled(&mut self, id: u32, now: Instant) -> Vec<BlockKey> {
        self.reached = self.tokens.len();
        self.tokens.push(id);
        let generated = self.generated() as u32;
        let stamps = &mut self.progress.record().stamps;
        stamps.first_token.get_or_insert(now);
        stamps.last_token = Some(now);
        stamps.usage.completion_tokens = generated;
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
            record.time.end(Instant::now());
            record.stamps.usage
        };
        let _ = self.events.try_send(Event::Finished(Finished { reason, text, usage }));
    }

    pub(super) fn fail(self, message: &str) {
        self.progress.record().time.end(Instant::now());
        let _ = self.events.try_send(Event::Failed(Failure { message: message.to_owned() }));
    }
}
