//! A model as the worker sees it: a flat ragged batch goes in, logits come out.
//!
//! The model knows no requests. Sequences of any length, some at their prompt and some decoding, are rows
//! one after the other; [`BatchSequence`] says which rows belong together and where their KV blocks are.

pub mod mistral;
mod work;

use std::ops::Range;

#[cfg(test)]
pub(crate) use work::SIZES;
pub use work::{ModelSizes, Work};

use crate::error::EngineError;

/// One step's work, as flat arrays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepBatch {
    /// Token id per row.
    pub tokens: Vec<u32>,
    /// Position in its sequence per row.
    pub positions: Vec<u32>,
    /// KV slot per row: `block · block_size + position in block`.
    pub slots: Vec<u32>,
    /// Who the rows belong to, in order.
    pub sequences: Vec<BatchSequence>,
    /// The sequences' block tables, one after the other.
    pub block_tables: Vec<u32>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<usize>,
}

/// One sequence of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSequence {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its part of `block_tables`.
    pub blocks: Range<usize>,
}

impl StepBatch {
    /// Empties it for the next step, keeping its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.slots.clear();
        self.sequences.clear();
        self.block_tables.clear();
        self.logit_rows.clear();
    }

    /// Adds a sequence's next tokens, which begin at `start` and whose KV lies in `blocks`.
    pub fn push(&mut self, tokens: &[u32], start: usize, blocks: &[u32], block_size: usize, logits: Logits) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        for position in start..start + tokens.len() {
            self.positions.push(position as u32);
            self.slots.push(blocks[position / block_size] * block_size as u32 + (position % block_size) as u32);
        }
        let table = self.block_tables.len();
        self.block_tables.extend_from_slice(blocks);
        self.sequences.push(BatchSequence { rows: first..self.tokens.len(), blocks: table..self.block_tables.len() });
        match logits {
            Logits::None => {}
            Logits::Last => self.logit_rows.push(self.tokens.len() - 1),
            Logits::All => self.logit_rows.extend(first..self.tokens.len()),
        }
    }
}

/// Which of a sequence's rows want logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: its prompt goes on in a later step.
    None,
    /// The last: the next token is sampled from it.
    Last,
    /// All, for scoring.
    All,
}

/// Something that computes steps.
pub trait Model: Send {
    /// Numbers per row of logits.
    fn vocabulary(&self) -> usize;

    /// What decides about the work of a step.
    fn sizes(&self) -> ModelSizes;

    /// Computes a step; `logits` becomes `[logit_rows, vocabulary]`.
    fn forward(&mut self, batch: &StepBatch, logits: &mut Vec<f32>) -> Result<(), EngineError>;
}
