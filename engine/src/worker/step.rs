//! One step: planned, computed, sampled, sent.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Active, Worker};
use crate::{
    error::EngineError,
    generation::{FinishReason, Token},
    handle::StepReport,
    model::Logits,
    sampling::{Sampled, Sampler},
    scheduler::{Plan, SequenceId},
    text::Piece,
};

/// One sequence's draw: its sampler, its logits, and what came of them.
type Draw<'a> = Mutex<(&'a mut Sampler, &'a mut [f32], Option<Sampled>)>;

impl Worker {
    /// Computes one step; true when there was nothing to do.
    pub(super) fn step(&mut self) -> bool {
        let started = Instant::now();
        let plan = self.scheduler.plan();
        for id in &plan.preempted {
            if let Some(active) = self.active.get_mut(id) {
                active.preempted(started);
            }
        }
        self.stats.preemptions += plan.preempted.len() as u64;
        if plan.chunks.is_empty() {
            return true;
        }
        self.fill_batch(&plan, started);
        let prefill = self.active.values().map(Active::prefill_tokens).sum();
        let computing = Instant::now();
        let computed = self.model.forward(&self.batch, &mut self.logits);
        let forward = computing.elapsed();
        match computed {
            Ok(()) => self.advance(&plan, prefill, started),
            Err(error) => self.fail(&plan, &error),
        }
        self.report(&plan, prefill, (started, forward));
        false
    }

    fn fill_batch(&mut self, plan: &Plan, started: Instant) {
        self.batch.clear();
        let block_size = self.scheduler.pool().block_size();
        let mut sampling = 0..;
        for &chunk in &plan.chunks {
            let Some(active) = self.active.get_mut(&chunk.id) else { continue };
            if active.scheduled(chunk, started) && self.prefix_cache {
                self.stats.prefix_cache_lookups += active.tokens.len() as u64;
                self.stats.prefix_cache_hits += chunk.start as u64;
            }
            let tokens = &active.tokens[chunk.start..chunk.start + chunk.tokens];
            active.logits = if chunk.samples { sampling.next() } else { None };
            let logits = if chunk.samples { Logits::Last } else { Logits::None };
            self.batch.push(tokens, chunk.start, self.scheduler.blocks(chunk.id), block_size, logits);
        }
    }

    /// Samples where a token is due, and sends what came of it.
    fn advance(&mut self, plan: &Plan, prefill: usize, started: Instant) {
        let sampled = self.sample();
        let now = Instant::now();
        for active in self.active.values_mut() {
            active.stepped(started, now, prefill, plan.tokens);
        }
        let mut due = Vec::with_capacity(sampled.len());
        let mut sampled = sampled.into_iter();
        for &chunk in &plan.chunks {
            let token = if chunk.samples { sampled.next() } else { None };
            let keys = match (&token, self.active.get_mut(&chunk.id)) {
                (Some(token), Some(active)) => active.sampled(token.id, now),
                _ => Vec::new(),
            };
            self.scheduler.computed(chunk, usize::from(token.is_some()), keys);
            due.extend(token.map(|token| (chunk.id, token)));
        }
        // Prompts come last in a plan, and someone waits for their first tokens: those go out first.
        for (id, token) in due.into_iter().rev() {
            self.deliver(id, token, now);
        }
        // The tasks that carry these tokens on are ready now; a core that is about to compute lets them go first.
        std::thread::yield_now();
    }

    /// The next token of every sequence that is due one, in the plan's order.
    fn sample(&mut self) -> Vec<Sampled> {
        let mut due: Vec<_> =
            self.active.values_mut().filter_map(|active| Some((active.logits.take()?, &mut active.sampler))).collect();
        due.sort_unstable_by_key(|(row, _)| *row);
        let rows = self.logits.chunks_exact_mut(self.model.vocabulary());
        let draws: Vec<Draw<'_>> =
            due.into_iter().zip(rows).map(|((_, sampler), logits)| Mutex::new((sampler, logits, None))).collect();
        self.threads.each(draws.len(), |index| {
            let (sampler, logits, sampled) = &mut *draws[index].lock().unwrap_or_else(PoisonError::into_inner);
            *sampled = Some(sampler.sample(logits));
        });
        draws.into_iter().filter_map(|draw| draw.into_inner().unwrap_or_else(PoisonError::into_inner).2).collect()
    }

    fn deliver(&mut self, id: SequenceId, sampled: Sampled, now: Instant) {
        let Some(active) = self.active.get_mut(&id) else { return };
        if self.text.is_end(sampled.id) && !active.ignore_eos {
            return self.finish(id, FinishReason::Stop);
        }
        let (text, stopped) = match active.stream.push(sampled.id) {
            Piece::Text(text) => (text, false),
            Piece::Stopped(text) => (text, true),
        };
        active.send(Token { id: sampled.id, text, logprob: sampled.logprob, sampled_at: now });
        if stopped {
            self.finish(id, FinishReason::Stop);
        } else if active.is_full() || active.tokens.len() >= self.max_context {
            self.finish(id, FinishReason::Length);
        }
    }

    /// A step that failed ends the requests that were in it, and only those.
    fn fail(&mut self, plan: &Plan, error: &EngineError) {
        tracing::error!(%error, sequences = plan.chunks.len(), "step failed");
        for chunk in &plan.chunks {
            if let Some(active) = self.remove(chunk.id) {
                active.fail(&error.to_string());
            }
        }
    }

    fn report(&mut self, plan: &Plan, prefill_tokens: usize, (started, forward): (Instant, Duration)) {
        self.stats.steps += 1;
        (self.observer)(&StepReport {
            started,
            duration: started.elapsed(),
            forward,
            sequences: plan.chunks.len(),
            prefill_tokens,
            decode_tokens: plan.tokens - prefill_tokens,
            kv_blocks_used: self.scheduler.pool().used(),
        });
    }
}
