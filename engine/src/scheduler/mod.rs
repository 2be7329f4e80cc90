//! Which sequences run in the next step, and which KV blocks they hold.
//!
//! Sans-io: ids, token counts and block keys go in, a [`Plan`] comes out. No clock, no randomness, no model, no
//! channel, no tokens: the same calls give the same plans, so that it can be simulated from a seed.
//!
//! A step serves answers first, one token each; what is left of its one token budget goes to prompts, those
//! under way and those of newcomers, in the order that the [`Policy`] says. Nobody is admitted past one who
//! does not fit. A newcomer takes the blocks of its whole prompt at once, or those that the prefix cache has
//! of it, and leaves a free block to everyone who runs, so that its prompt is not soon computed in vain.
//!
//! When an answer needs a block and none is free, the blocks of paused sequences are taken first, then those
//! of the youngest; what they held is recomputed later, where it cannot be found in the cache, and a step that
//! takes blocks away admits nobody. The oldest unpaused sequence therefore always goes on, and everything ends.
//!
//! Steps may overlap: what is planned counts as done at once, and the next step may be planned before it has
//! [landed](Scheduler::landed). Blocks given back meanwhile are given on at once, as steps are computed in the order
//! of their plans; but only what has landed can be found in the cache.

mod hold;
mod policy;
mod sequence;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use hold::Hold;
pub use policy::Policy;
pub use sequence::{Sequence, SequenceId};

use crate::kv::{BlockKey, BlockPool};

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
    /// Tokens of all parts, guessed ones included.
    pub tokens: usize,
    /// Sequences that lost their blocks while planning.
    pub preempted: Vec<SequenceId>,
    /// Sequences that have no blocks after it though they would take some, and why not.
    pub held: Vec<(SequenceId, Hold)>,
}

/// A run of one sequence's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Whose.
    pub id: SequenceId,
    /// Position of the first token.
    pub start: usize,
    /// Number of known tokens.
    pub tokens: usize,
    /// Number of guessed tokens after them.
    pub guessed: usize,
    /// Whether the last known one is the sequence's newest token, so that the next is sampled from it.
    pub samples: bool,
}

/// The queue, the running sequences and the block pool.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    policy: Policy,
    pool: BlockPool,
    /// Without blocks, by arrival; preempted sequences are back in their place.
    waiting: BTreeMap<SequenceId, Sequence>,
    /// With blocks, by arrival.
    running: BTreeMap<SequenceId, Sequence>,
    /// Plans made.
    steps: u64,
}

impl Scheduler {
    /// An empty scheduler over a pool.
    pub fn new(limits: Limits, policy: Policy, pool: BlockPool) -> Self {
        assert!(limits.max_batch > 0 && limits.max_step_tokens > 0 && pool.total() > 0);
        Self { limits, policy, pool, waiting: BTreeMap::new(), running: BTreeMap::new(), steps: 0 }
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
        self.running.get(&id).map_or(&[], |sequence| &sequence.blocks)
    }

    /// Adds a sequence of `tokens` known tokens that will have `limit` at most; `keys` say what its full blocks
    /// will contain, or nothing if they are not to be shared. Ids rise with arrival; the caller keeps `limit` within
    /// [`Scheduler::max_positions`], and removes the sequence when it has so many.
    pub fn submit(&mut self, id: SequenceId, tokens: usize, limit: usize, keys: Vec<BlockKey>) {
        debug_assert!(tokens > 0 && self.waiting.last_key_value().is_none_or(|(last, _)| *last < id));
        debug_assert!(tokens < limit && limit <= self.max_positions());
        self.waiting.insert(id, Sequence::new(id, tokens, limit, keys));
    }

    /// Decides the next step, which is under way from then on; empty when nothing can run. `guess` is asked, for
    /// answers that have room to go on, how many tokens it guesses after those known, given how many it may; it
    /// keeps them, and the token after them, within the sequence's limit.
    pub fn plan(&mut self, guess: impl FnMut(SequenceId, usize) -> usize) -> Plan {
        self.steps += 1;
        let mut plan = Plan::default();
        self.plan_answers(&mut plan);
        let answers = plan.chunks.len();
        let hold = self.plan_prompts(&mut plan);
        plan.held = self.held(hold);
        self.plan_guesses(&mut plan, answers, guess);
        for chunk in &plan.chunks {
            self.running.get_mut(&chunk.id).into_iter().for_each(|sequence| sequence.launch(chunk));
        }
        plan
    }

    /// Notes that a planned chunk was computed and `sampled` tokens became known, all but the last as guessed,
    /// with the keys of the blocks that these fill. What was guessed wrong is computed over later. Steps land in
    /// the order in which they were planned.
    pub fn landed(&mut self, chunk: Chunk, sampled: usize, keys: Vec<BlockKey>) {
        let Some(sequence) = self.running.get_mut(&chunk.id) else {
            // It may have lost its blocks since.
            let preempted = self.waiting.get_mut(&chunk.id);
            return preempted.into_iter().for_each(|sequence| sequence.land_in_vain(sampled, &keys));
        };
        sequence.land(&chunk, sampled, &keys);
        sequence.publish(&mut self.pool);
        let needed = self.pool.blocks_for(sequence.known).min(sequence.blocks.len());
        self.pool.give_back(sequence.blocks.drain(needed..));
    }

    /// Removes a sequence, wherever it is, also from a step under way; its blocks are free at once.
    pub fn remove(&mut self, id: SequenceId) {
        self.waiting.remove(&id);
        if let Some(mut sequence) = self.running.remove(&id) {
            sequence.give_back_blocks(&mut self.pool);
        }
    }

    /// Leaves a sequence out of the steps to come, or takes it back in.
    pub fn set_paused(&mut self, id: SequenceId, paused: bool) {
        if let Some(sequence) = self.running.get_mut(&id).or_else(|| self.waiting.get_mut(&id)) {
            sequence.paused = paused;
        }
    }

    /// What the plan is full of, if it is full.
    fn bound_met(&self, plan: &Plan) -> Option<Hold> {
        if plan.chunks.len() == self.limits.max_batch {
            return Some(Hold::Batch);
        }
        (plan.tokens == self.limits.max_step_tokens).then_some(Hold::StepBudget)
    }

    /// One token for everyone who has only one missing, in order of arrival.
    fn plan_answers(&mut self, plan: &mut Plan) {
        let decoding = self.running.values().filter(|sequence| sequence.is_awake() && sequence.is_decoding());
        for id in decoding.map(|sequence| sequence.id).collect::<Vec<_>>() {
            if self.bound_met(plan).is_some() {
                return;
            }
            if self.grow(id, plan) {
                self.extend(id, plan);
            }
        }
    }

    /// Makes sure that there is a block for the token that is missing; false if there is none, or if the
    /// sequence lost its blocks to an older one in this very step.
    fn grow(&mut self, id: SequenceId, plan: &mut Plan) -> bool {
        let Some(sequence) = self.running.get(&id) else { return false };
        if sequence.blocks.len() < self.pool.blocks_for(sequence.known) {
            while self.pool.free() == 0 {
                match self.victim(id) {
                    Some(victim) => self.preempt(victim, plan),
                    None => return false,
                }
            }
            let block = self.pool.take();
            self.running.get_mut(&id).into_iter().for_each(|sequence| sequence.blocks.extend(block));
        }
        true
    }

    /// Plans the next tokens of a sequence that has the blocks for them.
    fn extend(&mut self, id: SequenceId, plan: &mut Plan) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        let chunk = sequence.chunk(sequence.missing().min(self.limits.max_step_tokens - plan.tokens));
        sequence.planned = self.steps;
        plan.tokens += chunk.tokens;
        plan.chunks.push(chunk);
    }

    /// Who loses its blocks for `id`: a paused sequence, else one that came after it and is not planned yet; none
    /// that is about to leave.
    fn victim(&self, id: SequenceId) -> Option<SequenceId> {
        let mut younger = self.running.range(id..).rev().map(|(_, other)| other);
        let is_unplanned = |other: &&Sequence| other.id != id && other.planned != self.steps && !other.is_complete();
        self.youngest_paused().or_else(|| younger.find(is_unplanned).map(|other| other.id))
    }

    fn youngest_paused(&self) -> Option<SequenceId> {
        self.running
            .values()
            .rev()
            .find(|sequence| sequence.paused && !sequence.is_complete())
            .map(|sequence| sequence.id)
    }

    fn preempt(&mut self, id: SequenceId, plan: &mut Plan) {
        let Some(mut sequence) = self.running.remove(&id) else { return };
        sequence.give_back_blocks(&mut self.pool);
        // Its reader has seen a part of the answer: no newcomer goes before it.
        sequence.passed_over = Policy::PATIENCE;
        self.waiting.insert(id, sequence);
        plan.preempted.push(id);
    }

    /// Goes on with prompts, and admits newcomers while there are budget, places and blocks; gives what ran out.
    fn plan_prompts(&mut self, plan: &mut Plan) -> Option<Hold> {
        if let Some(bound) = self.bound_met(plan) {
            return Some(bound);
        }
        let mut awake = self.awake();
        // A step that had to take blocks away has none to give to newcomers.
        let mut hold = if plan.preempted.is_empty() { self.no_place(awake) } else { Some(Hold::Kv) };
        let (line, answers) = (self.line(hold.is_none()), plan.chunks.len());
        for &id in &line {
            if let Some(bound) = self.bound_met(plan) {
                hold = hold.or(Some(bound));
                break;
            }
            if self.waiting.contains_key(&id) {
                // Who does not fit is not passed by others: it would never be its turn.
                hold = hold.or(self.no_place(awake));
                if hold.is_some() {
                    continue;
                }
                if !self.admit(id, awake, plan) {
                    hold = Some(Hold::Kv);
                    continue;
                }
                awake += 1;
            }
            self.extend(id, plan);
        }
        let youngest = plan.chunks[answers..].iter().map(|chunk| chunk.id).max();
        line.into_iter().filter(|id| youngest.is_some_and(|youngest| *id < youngest)).for_each(|id| self.pass_over(id));
        hold
    }

    fn no_place(&self, awake: usize) -> Option<Hold> {
        (awake >= self.limits.max_batch).then_some(Hold::Batch)
    }

    /// Running sequences that take part in steps.
    fn awake(&self) -> usize {
        self.running.values().filter(|sequence| sequence.is_awake()).count()
    }

    /// Lets the first `answers` parts of the plan go on with what is guessed, as far as there is room.
    fn plan_guesses(&mut self, plan: &mut Plan, answers: usize, mut guess: impl FnMut(SequenceId, usize) -> usize) {
        for chunk in &mut plan.chunks[..answers] {
            let room = self.limits.max_step_tokens - plan.tokens;
            let Some(sequence) = self.running.get_mut(&chunk.id).filter(|_| room > 0) else { return };
            let wanted = guess(chunk.id, room).min(room);
            while sequence.blocks.len() < self.pool.blocks_for(sequence.known + wanted) {
                let Some(block) = self.pool.take() else { break };
                sequence.blocks.push(block);
            }
            chunk.guessed = wanted.min(sequence.blocks.len() * self.pool.block_size() - sequence.known);
            plan.tokens += chunk.guessed;
        }
    }

    /// The prompts that may get a part of the step, in turn.
    fn line(&self, with_newcomers: bool) -> Vec<SequenceId> {
        let turn = |sequence: &Sequence| (self.policy.rank(sequence), sequence.id);
        let under_way = self.running.values().filter(|sequence| sequence.is_awake() && !sequence.is_decoding());
        let mut line: Vec<_> = under_way.map(turn).collect();
        if with_newcomers {
            line.extend(self.waiting.values().filter(|sequence| sequence.is_admissible()).map(turn));
        }
        line.sort_unstable();
        line.into_iter().map(|(_, id)| id).collect()
    }

    /// Gives a waiting sequence its blocks, those of paused ones if need be, but none of the last `reserve`.
    fn admit(&mut self, id: SequenceId, reserve: usize, plan: &mut Plan) -> bool {
        let Some(mut sequence) = self.waiting.remove(&id) else { return false };
        while !sequence.take_blocks(&mut self.pool, reserve) {
            let Some(paused) = self.youngest_paused() else {
                self.waiting.insert(id, sequence);
                return false;
            };
            self.preempt(paused, plan);
        }
        self.running.insert(id, sequence);
        true
    }

    /// Notes that a younger prompt got something in this step, if this one got nothing.
    fn pass_over(&mut self, id: SequenceId) {
        let sequence = self.running.get_mut(&id).or_else(|| self.waiting.get_mut(&id));
        if let Some(sequence) = sequence.filter(|sequence| sequence.planned != self.steps) {
            sequence.passed_over += 1;
        }
    }
}
