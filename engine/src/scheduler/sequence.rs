//! What the scheduler knows of one sequence.

use super::Chunk;
use crate::kv::{BlockKey, BlockPool};

/// A sequence's name; rises with arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// Counts and blocks of one sequence: `computed < known` always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// Tokens known: prompt and sampled.
    pub known: usize,
    /// Of these, how many have their KV in `blocks`.
    pub computed: usize,
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
    pub(super) fn new(id: SequenceId, known: usize, keys: Vec<BlockKey>) -> Self {
        Self {
            id,
            known,
            computed: 0,
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
        self.computed = self.published * pool.block_size();
        self.blocks.extend((0..own).filter_map(|_| pool.take()));
        true
    }

    /// Gives its blocks back; what was in them is missing again.
    pub(super) fn give_back_blocks(&mut self, pool: &mut BlockPool) {
        pool.give_back(self.blocks.drain(..));
        (self.computed, self.published) = (0, 0);
    }

    /// Lets others find the blocks that are full.
    pub(super) fn publish(&mut self, pool: &mut BlockPool) {
        let full = (self.computed / pool.block_size()).min(self.keys.len());
        for index in self.published..full {
            pool.publish(self.blocks[index], self.keys[index]);
        }
        self.published = full;
    }
}
