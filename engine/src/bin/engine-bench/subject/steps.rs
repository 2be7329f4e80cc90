//! Batches as the scheduler would lay them out, every sequence in blocks of its own.

use std::ops::Range;

use anyhow::ensure;
use engine::{
    EngineConfig, ModelConfig,
    model::{Logits, StepBatch},
};

use crate::rows::Row;

/// Lays out steps, one at a time.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) block_size: usize,
    /// Sequences of the largest batch.
    pub(super) sequences: usize,
    /// Positions of the longest row.
    pub(super) positions: usize,
    vocabulary: usize,
    /// For token ids that differ from step to step.
    tokens_made: usize,
    batch: StepBatch,
}

/// What some sequences compute.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) sequences: Range<usize>,
    pub(super) positions: Range<usize>,
    /// Positions from there on are answers'.
    pub(super) prompt: usize,
    pub(super) logits: Logits,
}

impl Step {
    /// One pass of `row` in steps of at most `most` positions. Logits are wanted of the last position only.
    pub(super) fn of(row: Row, most: usize) -> Vec<Self> {
        let steps = row.steps(most);
        let last = steps.len() - 1;
        let step = |(index, positions)| Self {
            sequences: 0..row.batch,
            positions,
            prompt: row.prompt,
            logits: if index == last { Logits::Last } else { Logits::None },
        };
        steps.into_iter().enumerate().map(step).collect()
    }
}

impl Steps {
    /// For the largest of `rows`, which the model's context has to hold.
    pub(super) fn new(config: &ModelConfig, rows: &[Row]) -> anyhow::Result<Self> {
        let positions = rows.iter().map(|row| row.prompt + 1).max().unwrap_or(1);
        ensure!(
            positions <= config.max_context,
            "a prompt of {} tokens and one more do not fit the model's context of {}",
            positions - 1,
            config.max_context
        );
        Ok(Self {
            block_size: EngineConfig::default().block_size,
            sequences: rows.iter().map(|row| row.batch).max().unwrap_or(1),
            positions,
            vocabulary: config.vocab_size,
            tokens_made: 0,
            batch: StepBatch::default(),
        })
    }

    /// Blocks of all sequences.
    pub(super) fn blocks(&self) -> usize {
        self.sequences * self.blocks_per_sequence()
    }

    fn blocks_per_sequence(&self) -> usize {
        self.positions.div_ceil(self.block_size)
    }

    /// The batch of `step`.
    pub(super) fn lay_out(&mut self, step: Step) -> &StepBatch {
        let Step { sequences, positions, prompt, logits } = step;
        self.batch.clear();
        for sequence in sequences {
            let tokens: Vec<u32> = (0..positions.len()).map(|_| self.token()).collect();
            let first = sequence * self.blocks_per_sequence();
            let count = positions.end.div_ceil(self.block_size);
            let blocks: Vec<u32> = (first..first + count).map(|block| block as u32).collect();
            self.batch.push(&tokens, positions.start, &blocks, self.block_size, logits).prompt = prompt;
        }
        &self.batch
    }

    /// An id somewhere in the vocabulary.
    fn token(&mut self) -> u32 {
        self.tokens_made += 1;
        (self.tokens_made.wrapping_mul(2_654_435_761) % self.vocabulary) as u32
    }
}
