//! One step: planned, computed, sampled, sent.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::{Active, Worker};
use crate::{
    error::EngineError,
    generation::{FinishReason, Token},
    model::Logits,
    sampling::Sampled,
    scheduler::{Chunk, Plan, SequenceId},
    text::{Piece, Text},
};

/// One sequence's draw: whose, its rows of logits, and what came of them.
type Draw<'a> = Mutex<(&'a mut Active, &'a mut [f32], Vec<Sampled>)>;

impl Worker {
    /// Computes one step; true when there was nothing to do.
    pub(super) fn step(&mut self) -> bool {
        let started = Instant::now();
        let plan = self.scheduler.plan(|id, room| {
            let most = room.min(self.speculative_tokens);
            self.active.get_mut(&id).map_or(0, |active| active.guess(most, self.max_context))
        });
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
        self.report.kv_blocks_used = self.scheduler.pool().used();
        self.observer.begun(&self.report.start);
        let planned = Instant::now();
        let outcome = self.model.forward(&self.batch, &mut self.logits);
        let computed = Instant::now();
        let sampled = match outcome {
            Ok(()) => self.advance(&plan, prefill, started),
            Err(error) => {
                self.fail(&plan, &error);
                computed
            }
        };
        self.report(&plan, prefill, [planned, computed, sampled]);
        false
    }

    fn fill_batch(&mut self, plan: &Plan, started: Instant) {
        self.batch.clear();
        self.report.start.next(started);
        let block_size = self.scheduler.pool().block_size();
        for &chunk in &plan.chunks {
            let Some(active) = self.active.get_mut(&chunk.id) else { continue };
            let first = active.scheduled(chunk, started);
            self.report.start.add(active.tag, first);
            if first && self.prefix_cache {
                self.stats.prefix_cache_lookups += active.tokens.len() as u64;
                self.stats.prefix_cache_hits += chunk.start as u64;
            }
            let logits = match (chunk.samples, chunk.guessed) {
                (false, _) => Logits::None,
                (true, 0) => Logits::Last,
                (true, _) => Logits::All,
            };
            let tokens = active.step_tokens(&chunk);
            self.batch.push(&tokens, chunk.start, self.scheduler.blocks(chunk.id), block_size, logits);
        }
    }

    /// Samples where a token is due, and sends what came of it; gives when all were sampled.
    fn advance(&mut self, plan: &Plan, prefill: usize, started: Instant) -> Instant {
        let sampled = self.sample(plan);
        let now = Instant::now();
        for active in self.active.values_mut() {
            active.stepped(started, now, prefill, plan.tokens);
        }
        // Prompts come last in a plan, and someone waits for their first tokens: those go out first.
        for (&chunk, sampled) in plan.chunks.iter().zip(sampled).rev() {
            self.go_on(chunk, sampled, now);
        }
        // The tasks that carry these tokens on are ready now; a core that is about to compute lets them go first.
        std::thread::yield_now();
        now
    }

    /// The next tokens of every part of the plan that is due any, in the plan's order.
    fn sample(&mut self, plan: &Plan) -> Vec<Vec<Sampled>> {
        let vocabulary = self.model.vocabulary();
        let mut parts: HashMap<SequenceId, &mut Active> = self
            .active
            .iter_mut()
            .filter(|(_, active)| active.chunk.is_some())
            .map(|(id, active)| (*id, active))
            .collect();
        let mut logits = self.logits.as_mut_slice();
        let draws: Vec<Draw<'_>> = plan
            .chunks
            .iter()
            .filter_map(|chunk| {
                let rows = if chunk.samples { 1 + chunk.guessed } else { 0 };
                let own = logits.split_off_mut(..rows * vocabulary)?;
                Some(Mutex::new((parts.remove(&chunk.id)?, own, Vec::new())))
            })
            .collect();
        self.threads.each(draws.len(), |index| {
            let (active, rows, sampled) = &mut *draws[index].lock().unwrap_or_else(PoisonError::into_inner);
            *sampled = active.draw(rows.chunks_exact_mut(vocabulary));
        });
        draws.into_iter().map(|draw| draw.into_inner().unwrap_or_else(PoisonError::into_inner).2).collect()
    }

    /// Sends what was sampled after a chunk, up to what ends the answer.
    fn go_on(&mut self, chunk: Chunk, sampled: Vec<Sampled>, now: Instant) {
        if chunk.samples && sampled.is_empty() {
            return self.break_off(chunk.id);
        }
        let Some(active) = self.active.get_mut(&chunk.id) else { return };
        let (mut known, mut keys, mut end) = (0_usize, Vec::new(), None);
        for token in sampled {
            known += 1;
            keys.extend(active.sampled(token.id, now));
            end = deliver(active, &self.text, token, now);
            if end.is_some() {
                break;
            }
        }
        if end.is_none() && known > 0 && (active.is_full() || active.tokens.len() >= self.max_context) {
            end = Some(FinishReason::Length);
        }
        self.stats.speculative_proposed += chunk.guessed as u64;
        self.stats.speculative_accepted += known.saturating_sub(1) as u64;
        self.scheduler.computed(chunk, known, keys);
        if let Some(reason) = end {
            self.finish(chunk.id, reason);
        }
    }

    /// What the model computed for a request is no number: it ends, and the others of the step go on.
    fn break_off(&mut self, id: SequenceId) {
        tracing::error!("the model's logits are not finite: are its weights whole?");
        if let Some(active) = self.remove(id) {
            active.fail("the model's logits are not finite");
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

    /// Tells of the step whose forward began, whose forward ended, and whose tokens were sampled at these instants.
    fn report(&mut self, plan: &Plan, prefill_tokens: usize, [planned, computed, sampled]: [Instant; 3]) {
        self.stats.steps += 1;
        let (report, ended) = (&mut self.report, Instant::now());
        let started = report.start.started;
        report.duration = ended - started;
        report.plan = planned - started;
        report.forward = computed - planned;
        report.sample = sampled - computed;
        report.send = ended - sampled;
        report.work = self.model.sizes().work_of(&self.batch);
        report.sequences = plan.chunks.len();
        report.prefill_tokens = prefill_tokens;
        report.decode_tokens = plan.tokens - prefill_tokens;
        report.kv_blocks_total = self.scheduler.pool().total();
        self.observer.computed(report);
    }
}

/// Sends one token; gives why it is the last, if it is.
fn deliver(active: &mut Active, text: &Text, sampled: Sampled, now: Instant) -> Option<FinishReason> {
    if text.is_end(sampled.id) && !active.ignore_eos {
        return Some(FinishReason::Stop);
    }
    let (text, stopped) = match active.stream.push(sampled.id) {
        Piece::Text(text) => (text, false),
        Piece::Stopped(text) => (text, true),
    };
    active.send(Token { id: sampled.id, text, logprob: sampled.logprob, sampled_at: now });
    stopped.then_some(FinishReason::Stop)
}
