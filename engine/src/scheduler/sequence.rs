//! What the scheduler knows of one sequence.

use super::Chunk;

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
    /// The blocks held, in order.
    pub blocks: Vec<u32>,
    /// Left out of steps.
    pub paused: bool,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, known: usize) -> Self {
        Self { id, known, computed: 0, blocks: Vec::new(), paused: false }
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
        Chunk { id: self.id, start: self.computed, tokens, samples: self.computed + tokens == self.known }
    }
}
