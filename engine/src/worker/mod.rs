//! The one thread that owns model, scheduler and KV blocks.
//!
//! It loops: take what arrived, let go of what ended, plan, compute, sample, send. It never waits for a
//! reader: a sequence whose channel is full is left out of the steps until its reader goes on.

mod active;
mod start;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use active::Active;
use rayon::prelude::*;
#[cfg(test)]
pub(crate) use start::{Prepared, compute_threads};
pub(crate) use start::{Surroundings, start};

use crate::{
    error::EngineError,
    generation::{FinishReason, Token},
    handle::{Command, EngineStats, Job, Shared, StepObserver, StepReport},
    model::{Logits, Model, StepBatch},
    sampling::Sampled,
    scheduler::{Chunk, Plan, Scheduler, SequenceId},
    text::{Piece, Text},
};

/// The thread's state.
struct Worker {
    model: Box<dyn Model>,
    text: Text,
    scheduler: Scheduler,
    max_context: usize,
    active: HashMap<SequenceId, Active>,
    next_id: u64,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    observer: StepObserver,
    batch: StepBatch,
    logits: Vec<f32>,
    steps: u64,
    preemptions: u64,
}

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Worker {
    fn run(mut self) {
        let mut idle = true;
        while self.receive(idle) == Flow::Continue {
            self.reap();
            idle = self.step();
            self.publish();
        }
        for (_, active) in self.active.drain() {
            active.fail("the engine has stopped");
        }
    }

    /// Takes all commands there are; waits for one when idle, but not past the next deadline.
    fn receive(&mut self, idle: bool) -> Flow {
        if idle {
            let deadline = self.active.values().filter_map(Active::deadline).min();
            let first = match deadline {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            let flow = match first {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Disconnected) => Flow::Stop,
                Err(RecvTimeoutError::Timeout) => Flow::Continue,
            };
            if flow == Flow::Stop {
                return flow;
            }
        }
        while let Ok(command) = self.inbox.try_recv() {
            if self.obey(command) == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    fn obey(&mut self, command: Command) -> Flow {
        match command {
            Command::Submit(job) => self.admit(*job),
            Command::Wake => {}
            Command::Shutdown => return Flow::Stop,
        }
        Flow::Continue
    }

    fn admit(&mut self, job: Job) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.scheduler.submit(id, job.request.prompt.len());
        self.active.insert(id, Active::new(job, &self.text));
    }

    /// Lets go of requests nobody waits for or whose deadline passed, and pauses those whose reader is slow.
    fn reap(&mut self) {
        let now = Instant::now();
        let ids: Vec<SequenceId> = self.active.keys().copied().collect();
        for id in ids {
            let Some(active) = self.active.get_mut(&id) else { continue };
            if active.is_abandoned() {
                self.remove(id);
            } else if active.deadline().is_some_and(|deadline| deadline <= now) {
                self.finish(id, FinishReason::Deadline);
            } else if let Some(paused) = active.update_stall(now) {
                self.scheduler.set_paused(id, paused);
            }
        }
    }

    /// Computes one step; true when there was nothing to do.
    fn step(&mut self) -> bool {
        let started = Instant::now();
        let plan = self.scheduler.plan();
        for id in &plan.preempted {
            if let Some(active) = self.active.get_mut(id) {
                active.preempted(started);
            }
        }
        self.preemptions += plan.preempted.len() as u64;
        if plan.chunks.is_empty() {
            return true;
        }
        self.fill_batch(&plan, started);
        let prefill = self.prefill_tokens(&plan);
        let computing = Instant::now();
        let computed = self.model.forward(&self.batch, &mut self.logits);
        let forward = computing.elapsed();
        match computed {
            Ok(()) => self.advance(&plan, prefill, started),
            Err(error) => self.fail(&plan, &error),
        }
        self.report(prefill, started, forward);
        false
    }

    fn fill_batch(&mut self, plan: &Plan, started: Instant) {
        self.batch.clear();
        let block_size = self.scheduler.pool().block_size();
        for chunk in &plan.chunks {
            let Some(active) = self.active.get_mut(&chunk.id) else { continue };
            active.scheduled(started);
            let tokens = &active.tokens[chunk.start..chunk.start + chunk.tokens];
            let logits = if chunk.samples { Logits::Last } else { Logits::None };
            self.batch.push(tokens, chunk.start, self.scheduler.blocks(chunk.id), block_size, logits);
        }
    }

    /// Samples where a token is due, and sends what came of it.
    fn advance(&mut self, plan: &Plan, prefill: usize, started: Instant) {
        let sampled = self.sample(plan);
        let now = Instant::now();
        self.attribute(plan, prefill, now.duration_since(started));
        for &chunk in &plan.chunks {
            self.scheduler.computed(chunk, usize::from(chunk.samples));
        }
        // Prompts come last in a plan, and someone waits for their first tokens: those go out first.
        let due = plan.chunks.iter().filter(|chunk| chunk.samples).rev();
        for (chunk, sampled) in due.zip(sampled.into_iter().rev()) {
            self.deliver(chunk.id, sampled, now);
        }
        // The tasks that carry these tokens on are ready now; a core that is about to compute lets them go first.
        std::thread::yield_now();
    }

    /// The next token of every sequence that is due one, in the plan's order.
    fn sample(&mut self, plan: &Plan) -> Vec<Sampled> {
        let order: HashMap<SequenceId, usize> =
            plan.chunks.iter().filter(|chunk| chunk.samples).enumerate().map(|(row, chunk)| (chunk.id, row)).collect();
        let mut due: Vec<_> =
            self.active.iter_mut().filter_map(|(id, active)| Some((*order.get(id)?, active))).collect();
        due.sort_unstable_by_key(|(row, _)| *row);
        let rows = self.logits.par_chunks_exact_mut(self.model.vocabulary());
        due.into_par_iter().zip(rows).map(|((_, active), logits)| active.sampler.sample(logits)).collect()
    }

    /// Notes for every decoding sequence the share of the step that went into other requests' prompts.
    fn attribute(&mut self, plan: &Plan, prefill: usize, duration: Duration) {
        if prefill == 0 {
            return;
        }
        let share = duration.mul_f64(prefill as f64 / self.batch.tokens.len() as f64);
        for chunk in &plan.chunks {
            if let Some(active) = self.active.get(&chunk.id).filter(|active| active.decodes(chunk)) {
                active.progress.stamp(|stamps| stamps.interference += share);
            }
        }
    }

    /// Tokens of the step that belong to prompts, or to what was lost and is recomputed.
    fn prefill_tokens(&self, plan: &Plan) -> usize {
        let decodes = |chunk: &&Chunk| self.active.get(&chunk.id).is_some_and(|active| active.decodes(chunk));
        plan.chunks.iter().map(|chunk| chunk.tokens).sum::<usize>() - plan.chunks.iter().filter(decodes).count()
    }

    fn deliver(&mut self, id: SequenceId, sampled: Sampled, now: Instant) {
        let Some(active) = self.active.get_mut(&id) else { return };
        active.sampled(sampled.id, now);
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

    fn finish(&mut self, id: SequenceId, reason: FinishReason) {
        if let Some(active) = self.remove(id) {
            active.finish(reason);
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

    fn remove(&mut self, id: SequenceId) -> Option<Active> {
        self.scheduler.remove(id);
        self.active.remove(&id)
    }

    fn report(&mut self, prefill_tokens: usize, started: Instant, forward: Duration) {
        self.steps += 1;
        let pool = self.scheduler.pool();
        (self.observer)(&StepReport {
            started,
            duration: started.elapsed(),
            forward,
            sequences: self.batch.sequences.len(),
            prefill_tokens,
            decode_tokens: self.batch.tokens.len() - prefill_tokens,
            kv_blocks_used: pool.total() - pool.free(),
        });
    }

    fn publish(&self) {
        let pool = self.scheduler.pool();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = EngineStats {
            waiting: 0,
            running: self.scheduler.running(),
            kv_blocks_used: pool.total() - pool.free(),
            kv_blocks_total: pool.total(),
            preemptions: self.preemptions,
            steps: self.steps,
        };
    }
}
