//! The one thread that owns model, scheduler and KV blocks.
//!
//! It loops: take what arrived, let go of what ended, plan, compute, sample, send. It never waits for a
//! reader: a sequence whose channel is full is left out of the steps until its reader goes on.
//!
//! - this file: the loop, and what comes and goes between steps;
//! - `step`: one step, from the plan to the tokens sent;
//! - `active`: one request; `attribution`: where its time goes; `lookup`: how it may go on;
//! - `start`: from a loaded model to a running thread.

mod active;
pub(crate) mod attribution;
mod lookup;
mod start;
mod step;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Instant,
};

use active::Active;
#[cfg(test)]
pub(crate) use start::Prepared;
pub(crate) use start::{Surroundings, start};

use crate::{
    generation::FinishReason,
    handle::{Command, EngineStats, Job, Shared},
    kernels::cpu::Threads,
    model::{Model, StepBatch},
    observer::{StepObserver, StepReport},
    scheduler::{Scheduler, SequenceId},
    text::Text,
};

/// The thread's state.
struct Worker {
    model: Box<dyn Model>,
    threads: Arc<Threads>,
    text: Text,
    scheduler: Scheduler,
    max_context: usize,
    prefix_cache: bool,
    speculative_tokens: usize,
    active: HashMap<SequenceId, Active>,
    next_id: u64,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    observer: Box<dyn StepObserver>,
    /// Of the step under way; filled in as it goes on.
    report: StepReport,
    batch: StepBatch,
    logits: Vec<f32>,
    /// Its counters; the gauges are read when it is published.
    stats: EngineStats,
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

    fn admit(&mut self, mut job: Job) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.scheduler.submit(id, job.request.prompt.len(), std::mem::take(&mut job.keys));
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

    fn finish(&mut self, id: SequenceId, reason: FinishReason) {
        if let Some(active) = self.remove(id) {
            active.finish(reason);
        }
    }

    fn remove(&mut self, id: SequenceId) -> Option<Active> {
        self.scheduler.remove(id);
        self.active.remove(&id)
    }

    fn publish(&mut self) {
        let pool = self.scheduler.pool();
        self.stats.running = self.scheduler.running();
        self.stats.kv_blocks_used = pool.used();
        self.stats.kv_blocks_total = pool.total();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }
}
