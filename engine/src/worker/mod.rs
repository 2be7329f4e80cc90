//! The one thread that owns model, scheduler and KV blocks.
//!
//! It loops: take what arrived, let go of what ended, plan and launch a step, land the oldest and send its tokens. It
//! never waits for a reader: a sequence whose channel is full is left out of the steps until its reader goes on.
//!
//! Where the executor computes on its own, there are two steps under way: one that is computed, and one that follows it
//! without a pause, while here the one before is sent and the one after planned. That one goes on from tokens that
//! nobody here knows yet. A step is landed when no other may be launched or none is to be planned, so that none is
//! under way when the thread waits for commands. Requests that end meanwhile are gone at once, and what steps under
//! way still give for them is dropped.
//!
//! - this file: the loop, and what comes and goes between steps;
//! - `step`: a step from the plan to its launch; `landing`: from there to the tokens sent;
//! - `active`: one request; `queueing`, `attribution`: where its time goes before and after its first step;
//!   `recompute`: what it lost; `lookup`: how it may go on;
//! - `slots`: numbers by which the executor knows requests;
//! - `start`: from a loaded model to a running thread.

mod active;
pub(crate) mod attribution;
mod landing;
mod lookup;
pub(crate) mod queueing;
mod recompute;
mod slots;
mod start;
mod step;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Instant,
};

use active::Active;
use slots::Slots;
#[cfg(test)]
pub(crate) use start::Prepared;
pub(crate) use start::{Surroundings, start};
use step::Step;

use crate::{
    generation::FinishReason,
    handle::{Command, EngineStats, Job, Shared},
    model::{Executor, StepBatch},
    observer::StepObserver,
    scheduler::{Scheduler, SequenceId},
    text::Text,
};

/// The thread's state.
struct Worker {
    executor: Box<dyn Executor>,
    slots: Slots,
    /// Steps that may be under way at once.
    depth: usize,
    /// The oldest first.
    under_way: VecDeque<Step>,
    /// Of the step that is laid out.
    batch: StepBatch,
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
    /// Its counters; the gauges are read when it is published.
    stats: EngineStats,
    /// The device computes nothing any more.
    broken: bool,
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
        while !self.broken && self.receive(idle) == Flow::Continue {
            self.reap();
            let launched = self.launch();
            let must_land = !launched || self.under_way.len() >= self.depth;
            let landed = must_land && self.land();
            idle = !launched && !landed;
            self.publish();
        }
        self.shared.stopped.store(true, Ordering::Release);
        for (_, active) in self.active.drain() {
            active.fail("the engine has stopped");
        }
        while self.land() {}
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
        let keys = std::mem::take(&mut job.keys);
        let active = Active::new(job, &self.text, self.max_context);
        self.scheduler.submit(id, active.tokens.len(), active.limit, keys);
        self.active.insert(id, active);
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
        let active = self.active.remove(&id)?;
        if let Some(slot) = active.slot {
            self.executor.end(slot);
            self.slots.give_back(slot);
        }
        Some(active)
    }

    fn publish(&mut self) {
        let pool = self.scheduler.pool();
        self.stats.running = self.scheduler.running();
        self.stats.kv_blocks_used = pool.used();
        self.stats.kv_blocks_total = pool.total();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }
}
