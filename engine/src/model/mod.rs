//! A model as the worker sees it: a flat ragged batch goes into an [`Executor`], tokens come out.
//!
//! The model knows no requests. Sequences of any length, some at their prompt and some decoding, are rows
//! one after the other; [`BatchSequence`] says which rows belong together and where their KV blocks are.
//!
//! - `executor`: [`Executor`]: what computes steps, one at a time or overlapping;
//! - `cpu_executor`: [`CpuExecutor`]: a [`Model`], whose logits are drawn from here;
//! - [`mistral`]: the model; `cuda`: the same on a GPU; `work`: what a step of it has to move and to compute.

mod cpu_executor;
#[cfg(feature = "cuda")]
pub mod cuda;
mod executor;
pub mod mistral;
mod work;

use std::ops::Range;

pub use cpu_executor::CpuExecutor;
pub use executor::{Executor, Landed};
#[cfg(test)]
pub(crate) use work::SIZES;
pub use work::{ModelSizes, Work};

use crate::{
    error::EngineError,
    loader::{Tensor, WeightName, Weights},
};

/// In place of a token id: the one that the step before, still under way, draws for this sequence. Where that one
/// draws none, any token will do: nobody wants what comes of it.
pub const PENDING: u32 = u32::MAX;

/// One step's work, as flat arrays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepBatch {
    /// Token id per row, or [`PENDING`].
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
    /// Where what drawing needs of it is kept.
    pub slot: usize,
    /// Its prompt's length: positions from there on are its answer's.
    pub prompt: usize,
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

    /// Which of `logit_rows` are each sequence's, in order: more than one where it guesses how it goes on.
    pub fn wanted(&self) -> impl Iterator<Item = Range<usize>> {
        let mut first = 0;
        self.sequences.iter().map(move |sequence| {
            let own = first..self.logit_rows.partition_point(|row| *row < sequence.rows.end);
            first = own.end;
            own
        })
    }

    /// Adds a sequence's next tokens, which begin at `start` and whose KV lies in `blocks`. Where nothing else is
    /// written into what it gives back, they are of a prompt without end, and the slot is the place in the batch.
    pub fn push(
        &mut self,
        tokens: &[u32],
        start: usize,
        blocks: &[u32],
        block_size: usize,
        logits: Logits,
    ) -> &mut BatchSequence {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        for position in start..start + tokens.len() {
            self.positions.push(position as u32);
            self.slots.push(blocks[position / block_size] * block_size as u32 + (position % block_size) as u32);
        }
        let table = self.block_tables.len();
        self.block_tables.extend_from_slice(blocks);
        match logits {
            Logits::None => {}
            Logits::Last => self.logit_rows.push(self.tokens.len() - 1),
            Logits::All => self.logit_rows.extend(first..self.tokens.len()),
        }
        self.sequences.push_mut(BatchSequence {
            rows: first..self.tokens.len(),
            blocks: table..self.block_tables.len(),
            slot: self.sequences.len(),
            prompt: usize::MAX,
        })
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

/// A weight that the model has.
fn tensor(weights: &Weights, name: WeightName) -> Result<&Tensor, EngineError> {
    weights.get(name).ok_or_else(|| EngineError::Compute(format!("the model has no {name:?}")))
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
