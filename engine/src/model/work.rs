//! What a step has to move and to compute, whoever computes it.
//!
//! Counted is what no computation can do without: every weight is read once, the embedding of every token, the keys
//! and values that a token may see once per sequence, and each product of the linear layers. What stays in a
//! cache, what is read twice, and the products of attention are left out: so a share of the machine's limits that
//! is made of this is never flattered by waste.

use std::ops::{Add, Range};

use super::StepBatch;
use crate::kernels::cpu::WeightSize;

/// Bytes and operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes read and written: weights as stored, embedding rows, keys and values.
    pub bytes: u64,
    /// Two per weight and row of the linear layers.
    pub operations: u64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, operations: self.operations + other.operations }
    }
}

/// The sizes of a model that decide about its work.
#[derive(Debug, Clone, Copy)]
pub struct ModelSizes {
    /// What every row meets.
    pub layers: WeightSize,
    /// What only rows whose logits are wanted meet.
    pub output: WeightSize,
    /// Bytes of one token's embedding.
    pub embedding_row_bytes: u64,
    /// Bytes of keys and values of one position, all layers together.
    pub kv_position_bytes: u64,
    /// Positions seen, the own one included.
    pub window: usize,
}

impl ModelSizes {
    /// The work of a step in which each sequence computes one of `positions`, and `logit_rows` rows want logits.
    pub fn work(&self, positions: impl IntoIterator<Item = Range<usize>>, logit_rows: usize) -> Work {
        let (mut rows, mut positions_moved) = (0, 0);
        for computed in positions {
            let seen = computed.end - (computed.start + 1).saturating_sub(self.window);
            rows += computed.len() as u64;
            positions_moved += (computed.len() + seen) as u64;
        }
        let output = if logit_rows > 0 { self.output.bytes } else { 0 };
        Work {
            bytes: self.layers.bytes
                + output
                + rows * self.embedding_row_bytes
                + positions_moved * self.kv_position_bytes,
            operations: 2 * (rows * self.layers.weights + logit_rows as u64 * self.output.weights),
        }
    }

    /// The work of `batch`.
    pub fn work_of(&self, batch: &StepBatch) -> Work {
        let positions = batch.sequences.iter().map(|sequence| {
            let start = batch.positions[sequence.rows.start] as usize;
            start..start + sequence.rows.len()
        });
        self.work(positions, batch.logit_rows.len())
    }
}

/// Sizes with which sums can be done by hand.
#[cfg(test)]
pub(crate) const SIZES: ModelSizes = ModelSizes {
    layers: WeightSize { bytes: 1000, weights: 2000 },
    output: WeightSize { bytes: 100, weights: 200 },
    embedding_row_bytes: 10,
    kv_position_bytes: 1,
    window: usize::MAX,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Logits;

    /// A batch of sequences given by where they begin, how many tokens they compute, and their logits.
    fn batch(parts: &[(usize, usize, Logits)]) -> StepBatch {
        let mut batch = StepBatch::default();
        for &(start, tokens, logits) in parts {
            let blocks: Vec<u32> = (0..(start + tokens).div_ceil(4) as u32).collect();
            batch.push(&vec![7; tokens], start, &blocks, 4, logits);
        }
        batch
    }

    #[test]
    fn a_step_moves_weights_once_and_what_each_sequence_sees() {
        let windowed = ModelSizes { window: 4, ..SIZES };
        for (what, sizes, parts, rows, logit_rows, positions) in [
            ("one token, seven before it", SIZES, vec![(7, 1, Logits::Last)], 1, 1, 8 + 1),
            ("three of them", SIZES, vec![(7, 1, Logits::Last); 3], 3, 3, 3 * (8 + 1)),
            ("a prompt", SIZES, vec![(0, 5, Logits::Last)], 5, 1, 5 + 5),
            ("a chunk amid a prompt", SIZES, vec![(8, 5, Logits::None)], 5, 0, 13 + 5),
            ("an answer beside it", SIZES, vec![(3, 1, Logits::Last), (8, 5, Logits::None)], 6, 1, 4 + 1 + 13 + 5),
            ("a token and two guessed", SIZES, vec![(7, 3, Logits::All)], 3, 3, 10 + 3),
            ("a window", windowed, vec![(7, 1, Logits::Last)], 1, 1, 4 + 1),
            ("a chunk through a window", windowed, vec![(7, 3, Logits::Last)], 3, 1, 6 + 3),
            ("a context shorter than it", windowed, vec![(0, 2, Logits::Last)], 2, 1, 2 + 2),
        ] {
            let output = if logit_rows > 0 { 100 } else { 0 };
            let expected =
                Work { bytes: 1000 + output + 10 * rows + positions, operations: 2 * (2000 * rows + 200 * logit_rows) };
            assert_eq!(sizes.work_of(&batch(&parts)), expected, "{what}");
        }
    }
}
