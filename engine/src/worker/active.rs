//! One request while the worker has it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    generation::{Event, Failure, FinishReason, Finished, Token},
    handle::{Job, Progress, Ticket},
    sampling::Sampler,
    scheduler::Chunk,
    text::{Text, TextStream},
};

/// A request's tokens, sampler, detokenizer and way back to its reader.
pub(super) struct Active {
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    pub(super) sampler: Sampler,
    pub(super) stream: TextStream,
    pub(super) progress: Arc<Progress>,
    pub(super) ignore_eos: bool,
    prompt_tokens: usize,
    max_tokens: usize,
    deadline: Option<Instant>,
    events: mpsc::Sender<Event>,
    /// Held until the first step.
    ticket: Option<Ticket>,
    stalled_since: Option<Instant>,
    preempted_since: Option<Instant>,
}

impl Active {
    pub(super) fn new(job: Job, text: &Text) -> Self {
        let request = job.request;
        Self {
            sampler: Sampler::new(request.sampling, request.logprobs, &request.prompt),
            stream: text.stream(&request.stop),
            prompt_tokens: request.prompt.len(),
            tokens: request.prompt,
            progress: job.progress,
            ignore_eos: request.ignore_eos,
            max_tokens: request.max_tokens as usize,
            deadline: request.deadline,
            events: job.events,
            ticket: Some(job.ticket),
            stalled_since: None,
            preempted_since: None,
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

    /// Whether this chunk is one more token of an answer, not (part of) a prompt or its recomputation.
    pub(super) fn decodes(&self, chunk: &Chunk) -> bool {
        chunk.tokens == 1 && chunk.samples && self.generated() > 0 && self.preempted_since.is_none()
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Looks whether the reader keeps up; gives the new state when it changed.
    pub(super) fn update_stall(&mut self, now: Instant) -> Option<bool> {
        let full = |events: &mpsc::Sender<Event>| events.capacity() < 2;
        match self.stalled_since {
            None if full(&self.events) => {
                self.progress.stalled.store(true, Ordering::Release);
                // The reader may have gone on just before it could see the flag.
                if !full(&self.events) {
                    self.progress.stalled.store(false, Ordering::Release);
                    return None;
                }
                self.stalled_since = Some(now);
                Some(true)
            }
            Some(_) if full(&self.events) => {
                self.progress.stalled.store(true, Ordering::Release);
                None
            }
            Some(since) => {
                self.stalled_since = None;
                self.preempted_since = self.preempted_since.map(|_| now);
                self.progress.stamp(|stamps| stamps.stall += now.duration_since(since));
                Some(false)
            }
            None => None,
        }
    }

    /// It became part of a step that began at `started`.
    pub(super) fn scheduled(&mut self, started: Instant) {
        self.ticket = None;
        self.progress.stamp(|stamps| {
            stamps.scheduled.get_or_insert(started);
            stamps.steps += 1;
        });
    }

    /// It lost its blocks.
    pub(super) fn preempted(&mut self, now: Instant) {
        self.preempted_since.get_or_insert(now);
    }

    /// A token was sampled: whatever was lost is recomputed.
    pub(super) fn sampled(&mut self, id: u32, now: Instant) {
        self.tokens.push(id);
        let generated = self.generated() as u32;
        let preempted = self.preempted_since.take();
        self.progress.stamp(|stamps| {
            stamps.first_token.get_or_insert(now);
            stamps.last_token = Some(now);
            stamps.usage.completion_tokens = generated;
            if let Some(since) = preempted {
                stamps.preempted += now.saturating_duration_since(since);
            }
        });
    }

    /// Sends a token; there is room, as paused sequences are not sampled, or the reader has left.
    pub(super) fn send(&self, token: Token) {
        let _ = self.events.try_send(Event::Token(token));
    }

    pub(super) fn finish(mut self, reason: FinishReason) {
        let text = self.stream.finish();
        let now = Instant::now();
        let mut usage = Default::default();
        let (stalled, preempted) = (self.stalled_since, self.preempted_since);
        self.progress.stamp(|stamps| {
            stamps.stall += stalled.map_or_else(Default::default, |since| now.duration_since(since));
            // Time both without blocks and without a reader is the reader's.
            if stalled.is_none() && stamps.first_token.is_some() {
                stamps.preempted += preempted.map_or_else(Default::default, |since| now.duration_since(since));
            }
            usage = stamps.usage;
        });
        let _ = self.events.try_send(Event::Finished(Finished { reason, text, usage }));
    }

    pub(super) fn fail(self, message: &str) {
        let _ = self.events.try_send(Event::Failed(Failure { message: message.to_owned() }));
    }
}
