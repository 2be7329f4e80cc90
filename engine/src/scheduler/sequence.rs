//! What the scheduler knows of one sequence.

use super::Chunk;
use crate::kv::{BlockKey, BlockPool};

/// A sequence's name; rises with arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// Counts and blocks of one sequence: `landed <= computed < known <= limit` always. What steps under way will do
/// counts as done, but in `landed` and `published`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// Tokens known: prompt and sampled.
    pub known: usize,
    /// The most there will ever be.
    pub limit: usize,
    /// Of those known, how many have their KV in `blocks`.
    pub computed: usize,
    /// Of these, how many were computed by steps that have landed.
    pub landed: usize,
    /// Steps under way that it has a part in.
    pub under_way: usize,
    /// The blocks held, in order: those found in the cache, then its own.
    pub blocks: Vec<u32>,
    /// What its full blocks contain, as far as it may be shared.
    pub keys: Vec<BlockKey>,
    /// How many of its blocks were found in the cache or can be found there.
    pub published: usize,
    /// Left out of steps.
    pub paused: bool,
    /// Steps in which younger prompts got something and this one nothing.
    pub passed_over: u32,
    /// The last step it was planned in.
    pub planned: u64,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, known: usize, limit: usize, keys: Vec<BlockKey>) -> Self {
        Self {
            id,
            known,
            limit,
            computed: 0,
            landed: 0,
            under_way: 0,
            blocks: Vec::new(),
            keys,
            published: 0,
            paused: false,
            passed_over: 0,
            planned: 0,
        }
    }

    /// Tokens whose KV is missing.
    pub(super) fn missing(&self) -> usize {
        self.known - self.computed
    }

    /// Whether one token is all that is missing.
    pub(super) fn is_decoding(&self) -> bool {
        self.missing() == 1
    }

    /// Whether its last token is known, or will be when what is under way has landed: it only has to leave.
    pub(super) fn is_complete(&self) -> bool {
        self.known >= self.limit
    }

    /// Whether it may have a part in a step.
    pub(super) fn is_awake(&self) -> bool {
        !self.paused && !self.is_complete()
    }

    /// Whether it may be given blocks: not while a step that wrote to its former ones is under way, since what
    /// that one samples is not known yet.
    pub(super) fn is_admissible(&self) -> bool {
        self.is_awake() && self.under_way == 0
    }

    /// A step with this part of it is under way: counts as if it were done.
    pub(super) fn launch(&mut self, chunk: &Chunk) {
        self.computed = chunk.start + chunk.tokens;
        self.known += usize::from(chunk.samples);
        self.under_way += 1;
    }

    /// The step has landed and gave `sampled` tokens, with these keys of blocks that they fill.
    pub(super) fn land(&mut self, chunk: &Chunk, sampled: usize, keys: &[BlockKey]) {
        self.land_in_vain(sampled, keys);
        let guessed_right = sampled.saturating_sub(1);
        self.computed += guessed_right;
        self.landed = chunk.start + chunk.tokens + guessed_right;
    }

    /// The same, but what was computed lies in blocks that it has no more: only the tokens are left.
    pub(super) fn land_in_vain(&mut self, sampled: usize, keys: &[BlockKey]) {
        self.under_way -= 1;
        self.known += sampled.saturating_sub(1);
        self.keys.extend(keys);
    }

    /// Its next `tokens` tokens.
    pub(super) fn chunk(&self, tokens: usize) -> Chunk {
        let samples = self.computed + tokens == self.known;
        Chunk { id: self.id, start: self.computed, tokens, guessed: 0, samples }
    }

    /// Takes its blocks: those that the cache has, and new ones for the rest of what is known. False, and
    /// nothing taken, if fewer than `reserve` would be left.
    pub(super) fn take_blocks(&mut self, pool: &mut BlockPool, reserve: usize) -> bool {
        // The last token is computed in any case: the next one is sampled from it.
        let cacheable = ((self.known - 1) / pool.block_size()).min(self.keys.len());
        self.blocks = pool.take_cached(&self.keys[..cacheable]);
        let own = pool.blocks_for(self.known) - self.blocks.len();
        if pool.free() < own + reserve {
            pool.give_back(self.blocks.drain(..));
            return false;
        }
        self.published = self.blocks.len();
        self.landed = self.published * pool.block_size();
        self.computed = self.landed;
        self.blocks.extend((0..own).filter_map(|_| pool.take()));
        true
    }

    /// Gives its blocks back; what was in them is missing again.
    pub(super) fn give_back_blocks(&mut self, pool: &mut BlockPool) {
        pool.give_back(self.blocks.drain(..));
        (self.computed, self.landed, self.published) = (0, 0, 0);
    }

    /// Lets others find the blocks that are full of what has landed.
    pub(super) fn publish(&mut self, pool: &mut BlockPool) {
        let full = (self.landed / pool.block_size()).min(self.keys.len());
        for index in self.published..full {
            pool.publish(self.blocks[index], self.keys[index]);
        }
        self.published = full;
    }
}
