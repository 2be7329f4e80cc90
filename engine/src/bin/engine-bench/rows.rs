//! What is measured, and what one pass of it has to move and to multiply.

use std::ops::Range;

use engine::{EngineConfig, kernels::cpu::WeightSize};
use serde::Serialize;

/// Whether prompts are computed or tokens generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A pass is one prompt.
    Prefill,
    /// A pass is one step: one token for each sequence.
    Decode,
}

/// One line of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) mode: Mode,
    /// Sequences computed together.
    pub(crate) batch: usize,
    /// Tokens of the prompt, or of the context that decoding goes on from.
    pub(crate) prompt: usize,
}

/// All rows: every prompt, then every batch at every context.
pub(crate) fn all(prompts: &[u32], batches: &[u32]) -> Vec<Row> {
    let row = |mode, batch: u32, prompt: u32| Row { mode, batch: batch as usize, prompt: prompt as usize };
    let prefill = prompts.iter().map(|&prompt| row(Mode::Prefill, 1, prompt));
    let decode = batches.iter().flat_map(|&batch| prompts.iter().map(move |&prompt| row(Mode::Decode, batch, prompt)));
    prefill.chain(decode).collect()
}

impl Row {
    /// Tokens of a pass.
    pub(crate) fn tokens(self) -> usize {
        match self.mode {
            Mode::Prefill => self.prompt,
            Mode::Decode => self.batch,
        }
    }

    /// The positions that each sequence computes, step by step, as the scheduler plans them.
    pub(crate) fn steps(self) -> Vec<Range<usize>> {
        let most = EngineConfig::default().max_step_tokens;
        match self.mode {
            Mode::Prefill => (0..self.prompt).step_by(most).map(|at| at..(at + most).min(self.prompt)).collect(),
            Mode::Decode => std::iter::once(self.prompt..self.prompt + 1).collect(),
        }
    }
}

/// What a pass has to do, whoever computes it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Bytes read and written: weights as stored, embedding rows, keys and values.
    pub(crate) bytes: u64,
    /// Two per weight and row of the linear layers.
    pub(crate) operations: u64,
}

/// The sizes of a model that decide about its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) layers: WeightSize,
    pub(crate) output: WeightSize,
    pub(crate) embedding_row_bytes: u64,
    /// Keys and values of one position, all layers together.
    pub(crate) kv_position_bytes: u64,
    /// Positions seen.
    pub(crate) window: usize,
}

impl Sizes {
    /// The work of one pass of `row`.
    pub(crate) fn work(&self, row: Row) -> Work {
        let mut work = Work::default();
        let steps = row.steps();
        for (index, positions) in steps.iter().enumerate() {
            let computed = (row.batch * positions.len()) as u64;
            let seen = positions.end - (positions.start + 1).saturating_sub(self.window);
            let positions_moved = computed + (row.batch * seen) as u64;
            work.bytes += self.layers.bytes;
            work.bytes += computed * self.embedding_row_bytes + positions_moved * self.kv_position_bytes;
            work.operations += 2 * computed * self.layers.weights;
            // Logits are wanted of a sequence's last position only.
            if index + 1 == steps.len() {
                work.bytes += self.output.bytes;
                work.operations += 2 * row.batch as u64 * self.output.weights;
            }
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        layers: WeightSize { bytes: 1000, weights: 2000 },
        output: WeightSize { bytes: 100, weights: 200 },
        embedding_row_bytes: 10,
        kv_position_bytes: 1,
        window: usize::MAX,
    };

    #[test]
    fn a_decode_step_reads_weights_once_and_every_context() {
        let work = SIZES.work(Row { mode: Mode::Decode, batch: 3, prompt: 7 });
        // Seven positions and its own are read, and its own is written, for each.
        assert_eq!(work.bytes, 1000 + 100 + 3 * 10 + 3 * (8 + 1));
        assert_eq!(work.operations, 2 * 3 * (2000 + 200));
    }

    #[test]
    fn a_window_bounds_what_is_read() {
        let sizes = Sizes { window: 4, ..SIZES };
        assert_eq!(sizes.work(Row { mode: Mode::Decode, batch: 1, prompt: 7 }).bytes, 1000 + 100 + 10 + 4 + 1);
    }

    #[test]
    fn a_long_prompt_reads_the_layers_once_per_step_and_the_output_once() {
        let step = EngineConfig::default().max_step_tokens;
        let row = Row { mode: Mode::Prefill, batch: 1, prompt: step + 88 };
        assert_eq!(row.steps(), [0..step, step..step + 88]);
        let work = SIZES.work(row);
        let (step, prompt) = (step as u64, step as u64 + 88);
        assert_eq!(work.bytes, 2 * 1000 + 100 + prompt * 10 + (step + step) + (prompt + 88));
        assert_eq!(work.operations, 2 * (prompt * 2000 + 200));
    }
}
