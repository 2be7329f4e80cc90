//! A step begins: planned, laid out, handed to the executor.

use std::time::Instant;

use super::Worker;
use crate::{
    error::EngineError,
    model::Logits,
    observer::StepReport,
    scheduler::{Chunk, Plan, SequenceId},
};

/// A step under way.
pub(super) struct Step {
    /// Its parts, in row order.
    pub(super) parts: Vec<Part>,
    /// When the executor got it.
    pub(super) launched: Instant,
    /// What is known of it so far.
    pub(super) report: StepReport,
}

/// One sequence's part of a step.
pub(super) struct Part {
    pub(super) chunk: Chunk,
    /// Tokens of it that go into a prompt, or into what was lost.
    pub(super) prefill: usize,
}

impl Worker {
    /// Plans a step and starts it; false when there was nothing to do.
    pub(super) fn launch(&mut self) -> bool {
        let started = Instant::now();
        let plan = self.plan(started);
        if plan.chunks.is_empty() {
            return false;
        }
        let mut step = self.lay_out(&plan, started);
        if step.parts.is_empty() {
            // Those who were to begin could not, and have left room to others.
            return true;
        }
        self.observer.begun(&step.report.start);
        step.launched = Instant::now();
        match self.executor.launch(&self.batch) {
            Ok(()) => self.under_way.push_back(step),
            Err(error) => {
                // Steps end in the order in which they began.
                while self.land() {}
                self.fail(step, &error);
            }
        }
        true
    }

    fn plan(&mut self, started: Instant) -> Plan {
        let plan = self.scheduler.plan(|id, room| {
            let most = room.min(self.speculative_tokens);
            self.active.get_mut(&id).map_or(0, |active| active.guess(most))
        });
        for id in &plan.preempted {
            if let Some(active) = self.active.get_mut(id) {
                active.preempted(started);
            }
        }
        for (id, hold) in &plan.held {
            if let Some(active) = self.active.get(id) {
                active.held(*hold, started);
            }
        }
        self.stats.preemptions += plan.preempted.len() as u64;
        plan
    }

    /// Lays out the rows of a plan, but of no request that cannot begin: that one fails.
    fn lay_out(&mut self, plan: &Plan, started: Instant) -> Step {
        // Every step is told of, so those told of and those under way are all there were.
        let number = self.stats.steps + self.under_way.len() as u64 + 1;
        let mut step = Step { parts: Vec::new(), launched: started, report: StepReport::new(number, started) };
        self.batch.clear();
        for &chunk in &plan.chunks {
            match self.lay_out_part(chunk, &mut step) {
                Ok(()) => {}
                Err(error) => self.refuse(chunk.id, &error),
            }
        }
        let (pool, report) = (self.scheduler.pool(), &mut step.report);
        report.work = self.executor.sizes().work_of(&self.batch);
        report.sequences = step.parts.len();
        report.prefill_tokens = step.parts.iter().map(|part| part.prefill).sum();
        report.decode_tokens = self.batch.tokens.len() - report.prefill_tokens;
        (report.kv_blocks_used, report.kv_blocks_total) = (pool.used(), pool.total());
        step
    }

    fn lay_out_part(&mut self, chunk: Chunk, step: &mut Step) -> Result<(), EngineError> {
        let Some(active) = self.active.get_mut(&chunk.id) else { return Ok(()) };
        let first = active.is_new();
        let slot = active.slot(&mut self.slots, &mut *self.executor)?;
        step.report.start.add(active.tag, first);
        if first && self.prefix_cache {
            self.stats.prefix_cache_lookups += active.tokens.len() as u64;
            self.stats.prefix_cache_hits += chunk.start as u64;
        }
        let logits = match (chunk.samples, chunk.guessed) {
            (false, _) => Logits::None,
            (true, 0) => Logits::Last,
            (true, _) => Logits::All,
        };
        let (tokens, blocks) = (active.step_tokens(&chunk), self.scheduler.blocks(chunk.id));
        let sequence = self.batch.push(&tokens, chunk.start, blocks, self.scheduler.pool().block_size(), logits);
        (sequence.slot, sequence.prompt) = (slot, active.prompt_tokens);
        step.parts.push(Part { chunk, prefill: active.launched(&chunk, step.report.start.started) });
        Ok(())
    }

    /// A request cannot begin: it ends, and the others of the step go on.
    fn refuse(&mut self, id: SequenceId, error: &EngineError) {
        tracing::error!(%error, "a request cannot begin");
        if let Some(active) = self.remove(id) {
            active.fail(&error.to_string());
        }
    }
}
