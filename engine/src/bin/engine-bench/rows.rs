//! What is measured, and what one pass of it has to move and to multiply.

use std::ops::{Add, Range};

use engine::model::{ModelSizes, Work};
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

    /// The positions that each sequence computes, step by step, at most so many of a prompt.
    pub(crate) fn steps(self, most: usize) -> Vec<Range<usize>> {
        match self.mode {
            Mode::Prefill => (0..self.prompt).step_by(most).map(|at| at..(at + most).min(self.prompt)).collect(),
            Mode::Decode => std::iter::once(self.prompt..self.prompt + 1).collect(),
        }
    }

    /// What a pass has to move and to multiply, in such steps.
    pub(crate) fn work(self, sizes: &ModelSizes, most: usize) -> Work {
        let steps = self.steps(most);
        let work = steps.iter().enumerate().map(|(index, positions)| {
            // Logits are wanted of a sequence's last position only.
            let logit_rows = if index + 1 == steps.len() { self.batch } else { 0 };
            sizes.work(std::iter::repeat_n(positions.clone(), self.batch), logit_rows)
        });
        work.fold(Work::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use engine::kernels::cpu::WeightSize;

    use super::*;

    const SIZES: ModelSizes = ModelSizes {
        layers: WeightSize { bytes: 1000, weights: 2000 },
        output: WeightSize { bytes: 100, weights: 200 },
        embedding_row_bytes: 10,
        kv_position_bytes: 1,
        window: usize::MAX,
    };

    #[test]
    fn a_decode_step_reads_weights_once_and_every_context() {
        let work = Row { mode: Mode::Decode, batch: 3, prompt: 7 }.work(&SIZES, 128);
        // Seven positions and its own are read, and its own is written, for each.
        assert_eq!(work.bytes, 1000 + 100 + 3 * 10 + 3 * (8 + 1));
        assert_eq!(work.operations, 2 * 3 * (2000 + 200));
    }

    #[test]
    fn a_long_prompt_reads_the_layers_once_per_step_and_the_output_once() {
        let step = 128;
        let row = Row { mode: Mode::Prefill, batch: 1, prompt: step + 88 };
        assert_eq!(row.steps(step), [0..step, step..step + 88]);
        let work = row.work(&SIZES, step);
        let (step, prompt) = (step as u64, step as u64 + 88);
        assert_eq!(work.bytes, 2 * 1000 + 100 + prompt * 10 + (step + step) + (prompt + 88));
        assert_eq!(work.operations, 2 * (prompt * 2000 + 200));
    }
}
