//! Which sequences run in the next step, and which KV blocks they hold.
//!
//! Sans-io: ids and token counts go in, a [`Plan`] comes out. No clock, no randomness, no model, no
//! channel: the same calls give the same plans, so that it can be simulated from a seed.
//!
//! A step serves decoding sequences first, then goes on with prompts, then admits waiting sequences in
//! order of arrival, all within one token budget. When blocks run out, the blocks of paused sequences are
//! taken first, then those of the youngest; what they held is recomputed later. The oldest unpaused sequence
//! therefore always goes on, and everything ends.

mod sequence;
#[cfg(test)]
mod simulation;

use std::collections::VecDeque;

pub use sequence::{Sequence, SequenceId};

use crate::kv::BlockPool;

/// Bounds of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences in one step.
    pub max_batch: usize,
    /// Tokens in one step.
    pub max_step_tokens: usize,
}

/// What to compute in a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The parts, in row order.
    pub chunks: Vec<Chunk>,
    /// Sequences that lost their blocks while planning.
    pub preempted: Vec<SequenceId>,
}

/// A run of one sequence's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Whose.
    pub id: SequenceId,
    /// Position of the first token.
    pub start: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Whether the last one is the sequence's newest token, so that the next is sampled from it.
    pub samples: bool,
}

/// The queue, the running sequences and the block pool.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// In order of arrival; preempted sequences go back to their place.
    waiting: VecDeque<Sequence>,
    /// In order of arrival; each holds blocks.
    running: Vec<Sequence>,
}

impl Scheduler {
    /// An empty scheduler over a pool.
    pub fn new(limits: Limits, pool: BlockPool) -> Self {
        assert!(limits.max_batch > 0 && limits.max_step_tokens > 0 && pool.total() > 0);
        Self { limits, pool, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// The most positions one sequence may ever have.
    pub fn max_positions(&self) -> usize {
        self.pool.total() * self.pool.block_size()
    }

    /// The pool, for reading.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Sequences without blocks.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences with blocks.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// A sequence's blocks; empty when it waits.
    pub fn blocks(&self, id: SequenceId) -> &[u32] {
        self.running.iter().find(|sequence| sequence.id == id).map_or(&[], |sequence| &sequence.blocks)
    }

    /// Adds a sequence of `tokens` known tokens. Ids rise with arrival; the caller keeps the sequence within
    /// [`Scheduler::max_positions`].
    pub fn submit(&mut self, id: SequenceId, tokens: usize) {
        debug_assert!(tokens > 0 && self.waiting.back().is_none_or(|last| last.id < id));
        self.waiting.push_back(Sequence::new(id, tokens));
    }

    /// Decides the next step; empty when nothing can run.
    pub fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        let mut budget = self.limits.max_step_tokens;
        for decoding in [true, false] {
            let candidates: Vec<SequenceId> = self
                .running
                .iter()
                .filter(|sequence| !sequence.paused && sequence.is_decoding() == decoding)
                .map(|sequence| sequence.id)
                .collect();
            for id in candidates {
                if budget == 0 || plan.chunks.len() == self.limits.max_batch {
                    break;
                }
                self.extend(id, &mut budget, &mut plan);
            }
        }
        // A step that had to take blocks away has none to give to newcomers.
        if plan.preempted.is_empty() {
            self.admit(budget, &mut plan);
        }
        plan
    }

    /// Notes that a planned chunk was computed; `sampled` tokens were added after it (0 or 1).
    pub fn computed(&mut self, chunk: Chunk, sampled: usize) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == chunk.id) {
            sequence.computed = chunk.start + chunk.tokens;
            sequence.known += sampled;
        }
    }

    /// Removes a sequence, wherever it is; its blocks are free at once.
    pub fn remove(&mut self, id: SequenceId) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            self.pool.give_back(self.running.remove(index).blocks);
        }
    }

    /// Leaves a sequence out of the steps to come, or takes it back in.
    pub fn set_paused(&mut self, id: SequenceId, paused: bool) {
        let mut all = self.running.iter_mut().chain(&mut self.waiting);
        if let Some(sequence) = all.find(|sequence| sequence.id == id) {
            sequence.paused = paused;
        }
    }

    /// Plans the next tokens of a running sequence, taking blocks for them.
    fn extend(&mut self, id: SequenceId, budget: &mut usize, plan: &mut Plan) {
        let Some(index) = self.running.iter().position(|sequence| sequence.id == id) else {
            return; // It lost its blocks to an older one in this very step.
        };
        let sequence = &self.running[index];
        let tokens = sequence.missing().min(*budget);
        let wanted = self.pool.blocks_for(sequence.computed + tokens).saturating_sub(sequence.blocks.len());
        while self.pool.free() < wanted {
            match self.victim(id, plan) {
                Some(victim) => self.preempt(victim, plan),
                None => return,
            }
        }
        let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) else { return };
        sequence.blocks.extend((0..wanted).filter_map(|_| self.pool.take()));
        plan.chunks.push(sequence.chunk(tokens));
        *budget -= tokens;
    }

    /// Who loses its blocks for `id`: a paused sequence, else one that came after it and is not planned yet.
    fn victim(&self, id: SequenceId, plan: &Plan) -> Option<SequenceId> {
        let planned = |other: SequenceId| plan.chunks.iter().any(|chunk| chunk.id == other);
        let mut youngest_first = self.running.iter().rev();
        let paused = youngest_first.clone().find(|other| other.paused && other.id != id);
        let younger = || youngest_first.find(|other| other.id > id && !planned(other.id));
        paused.or_else(younger).map(|victim| victim.id)
    }

    fn preempt(&mut self, id: SequenceId, plan: &mut Plan) {
        let Some(index) = self.running.iter().position(|sequence| sequence.id == id) else { return };
        let mut sequence = self.running.remove(index);
        self.pool.give_back(sequence.blocks.drain(..));
        sequence.computed = 0;
        let place = self.waiting.partition_point(|other| other.id < id);
        self.waiting.insert(place, sequence);
        plan.preempted.push(id);
    }

    /// Admits waiting sequences in order while budget, places and blocks for all they know so far last.
    fn admit(&mut self, mut budget: usize, plan: &mut Plan) {
        let mut next = 0;
        let mut places = self.limits.max_batch.saturating_sub(self.running.iter().filter(|s| !s.paused).count());
        while next < self.waiting.len() && budget > 0 && places > 0 && plan.chunks.len() < self.limits.max_batch {
            if self.waiting[next].paused {
                next += 1;
                continue;
            }
            let needed = self.pool.blocks_for(self.waiting[next].known);
            while self.pool.free() < needed {
                match self.running.iter().rev().find(|sequence| sequence.paused).map(|sequence| sequence.id) {
                    Some(paused) => {
                        self.preempt(paused, plan);
                        next = self.waiting.iter().position(|sequence| !sequence.paused).unwrap_or(next);
                    }
                    None => return,
                }
            }
            let Some(sequence) = self.waiting.remove(next) else { return };
            let id = sequence.id;
            let place = self.running.partition_point(|other| other.id < id);
            self.running.insert(place, sequence);
            self.extend(id, &mut budget, plan);
            places -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(max_batch: usize, max_step_tokens: usize, blocks: usize) -> Scheduler {
        Scheduler::new(Limits { max_batch, max_step_tokens }, BlockPool::new(blocks, 4))
    }

    fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize, bool)> {
        let plan = scheduler.plan();
        for &chunk in &plan.chunks {
            scheduler.computed(chunk, usize::from(chunk.samples));
        }
        plan.chunks.iter().map(|chunk| (chunk.id.0, chunk.start, chunk.tokens, chunk.samples)).collect()
    }

    #[test]
    fn a_long_prompt_is_computed_in_chunks_while_others_decode() {
        let mut scheduler = scheduler(8, 6, 100);
        scheduler.submit(SequenceId(1), 3);
        assert_eq!(step(&mut scheduler), [(1, 0, 3, true)]);
        scheduler.submit(SequenceId(2), 12);
        assert_eq!(step(&mut scheduler), [(1, 3, 1, true), (2, 0, 5, false)]);
        assert_eq!(step(&mut scheduler), [(1, 4, 1, true), (2, 5, 5, false)]);
        assert_eq!(step(&mut scheduler), [(1, 5, 1, true), (2, 10, 2, true)]);
        assert_eq!(step(&mut scheduler), [(1, 6, 1, true), (2, 12, 1, true)]);
    }

    #[test]
    fn the_batch_bound_holds_and_places_are_given_in_order_of_arrival() {
        let mut scheduler = scheduler(2, 100, 100);
        for id in 1..=3 {
            scheduler.submit(SequenceId(id), 2);
        }
        assert_eq!(step(&mut scheduler), [(1, 0, 2, true), (2, 0, 2, true)]);
        assert_eq!((scheduler.running(), scheduler.waiting()), (2, 1));
        scheduler.remove(SequenceId(1));
        assert_eq!(step(&mut scheduler), [(2, 2, 1, true), (3, 0, 2, true)]);
    }

    #[test]
    fn without_blocks_the_youngest_is_recomputed_later() {
        let mut scheduler = scheduler(4, 100, 2);
        scheduler.submit(SequenceId(1), 4);
        scheduler.submit(SequenceId(2), 4);
        assert_eq!(step(&mut scheduler), [(1, 0, 4, true), (2, 0, 4, true)]);
        let plan = scheduler.plan();
        assert_eq!(plan.preempted, [SequenceId(2)]);
        assert_eq!(plan.chunks, [Chunk { id: SequenceId(1), start: 4, tokens: 1, samples: true }]);
        scheduler.computed(plan.chunks[0], 1);
        scheduler.remove(SequenceId(1));
        assert_eq!(step(&mut scheduler), [(2, 0, 5, true)], "the sampled token is recomputed too");
    }

    #[test]
    fn a_paused_sequence_holds_no_place_and_gives_up_its_blocks_first() {
        let mut scheduler = scheduler(1, 100, 2);
        scheduler.submit(SequenceId(1), 4);
        assert_eq!(step(&mut scheduler), [(1, 0, 4, true)]);
        scheduler.set_paused(SequenceId(1), true);
        scheduler.submit(SequenceId(2), 6);
        assert_eq!(step(&mut scheduler), [(2, 0, 6, true)], "it took the paused one's block");
        scheduler.set_paused(SequenceId(1), false);
        assert_eq!(step(&mut scheduler), [(2, 6, 1, true)]);
        scheduler.remove(SequenceId(2));
        assert_eq!(step(&mut scheduler), [(1, 0, 5, true)]);
    }

    #[test]
    fn a_removed_sequence_leaves_no_block_behind() {
        let mut scheduler = scheduler(4, 100, 10);
        scheduler.submit(SequenceId(1), 9);
        step(&mut scheduler);
        assert_eq!(scheduler.pool().free(), 7);
        assert_eq!(scheduler.blocks(SequenceId(1)).len(), 3);
        scheduler.remove(SequenceId(1));
        assert_eq!(scheduler.pool().free(), 10);
        assert!(step(&mut scheduler).is_empty());
    }
}
