//! Logits to tokens on the device: one block per sequence.
#![expect(unsafe_code, reason = "kernels are started")]

use std::sync::Arc;

use super::{
    driver::CudaError,
    gpu::Gpu,
    launch::{Kernel, Shape, args},
    memory::{Buffer, Pinned},
};
use crate::{generation::TokenLogprob, sampling::Sampled};

/// Threads of a block that samples.
const THREADS: u32 = 1024;
/// Threads of a block that notes a prompt's tokens.
const MARK_THREADS: usize = 256;

/// Whole numbers that say what a sequence wants: its first row of logits, its rows, top-k, how many logprobs (-1:
/// none), its row of counts (-1: no penalties); the rest is padding.
pub(crate) const SEQUENCE_INTS: usize = 8;
/// Numbers beside them: temperature, top-p, min-p, repetition, presence and frequency penalty, padding.
pub(crate) const SEQUENCE_FLOATS: usize = 8;
/// The largest vocabulary that the kernel draws from: what its warps take once.
pub(crate) const MOST_TOKENS: usize = 131_072;
/// The most tokens whose logprobs are given.
pub(crate) const MOST_TOP: u8 = 20;
/// What a row gives where no logit is finite.
pub(crate) const NO_TOKEN: i32 = -1;

/// Where a step's wishes lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    pub(crate) ints: u64,
    pub(crate) floats: u64,
    pub(crate) shares: u64,
    pub(crate) guesses: u64,
}

/// What is drawn from each row of logits: token, its logprob, the most likely tokens and theirs, one array after the
/// other in one buffer, so that they are copied in one go. Logprobs are the bits of floats.
#[derive(Debug)]
pub(crate) struct Drawn {
    rows: usize,
    pub(crate) numbers: Buffer<i32>,
}

impl Drawn {
    pub(crate) fn new(gpu: &Arc<Gpu>, rows: usize) -> Result<Self, CudaError> {
        Ok(Self { rows, numbers: Buffer::new(gpu, Self::numbers(rows))? })
    }

    /// Numbers of all arrays together.
    pub(crate) fn numbers(rows: usize) -> usize {
        2 * rows * (1 + usize::from(MOST_TOP))
    }

    /// Starts the copy of all that was drawn.
    pub(crate) fn start_copy(&self, to: &mut Pinned<i32>) -> Result<(), CudaError> {
        self.numbers.start_read(to, self.numbers.len())
    }

    /// Where the token, its logprob, the likely tokens and their logprobs of `row` begin.
    pub(crate) fn places(&self, row: usize) -> [usize; 4] {
        let (rows, most) = (self.rows, usize::from(MOST_TOP));
        [row, rows + row, 2 * rows + row * most, (2 + most) * rows + row * most]
    }

    /// The token at these places of a copy, with the logprobs of so many of the most likely, if any were wanted.
    pub(crate) fn sampled(from: &[i32], [token, logprob, top, top_logprobs]: [usize; 4], count: Option<u8>) -> Sampled {
        let float = |place: usize| f32::from_bits(from[place] as u32);
        let logprob = count.map(|count| {
            let likely = (0..usize::from(count)).map(|index| (from[top + index], float(top_logprobs + index)));
            let top = likely.filter(|(id, _)| *id >= 0).map(|(id, logprob)| (id as u32, logprob)).collect();
            TokenLogprob { logprob: float(logprob), top }
        });
        Sampled { id: from[token] as u32, logprob }
    }
}

/// What tokens were seen, and room for logits after penalties: a row for each sequence that has any.
#[derive(Debug)]
pub(crate) struct Penalties {
    vocabulary: usize,
    counts: Buffer<u32>,
    penalized: Buffer<f32>,
}

impl Penalties {
    pub(crate) fn new(gpu: &Arc<Gpu>, vocabulary: usize, rows: usize) -> Result<Self, CudaError> {
        let numbers = rows * SampleKernels::stride(vocabulary);
        Ok(Self { vocabulary, counts: Buffer::new(gpu, numbers)?, penalized: Buffer::new(gpu, numbers)? })
    }

    /// The same counts, with room for twice as many.
    pub(crate) fn doubled(&self, gpu: &Arc<Gpu>) -> Result<Self, CudaError> {
        let doubled = Self::new(gpu, self.vocabulary, 2 * self.rows())?;
        doubled.counts.copy(&self.counts)?;
        Ok(doubled)
    }

    pub(crate) fn rows(&self) -> usize {
        self.counts.len() / SampleKernels::stride(self.vocabulary)
    }

    /// A row has seen nothing.
    pub(crate) fn clear(&self, row: usize) -> Result<(), CudaError> {
        let stride = SampleKernels::stride(self.vocabulary);
        self.counts.clear(row * stride, stride)
    }
}

/// The kernels.
#[derive(Debug)]
pub(crate) struct SampleKernels {
    sample: Kernel,
    mark_prompt: Kernel,
    vocabulary: usize,
}

impl SampleKernels {
    pub(crate) fn new(gpu: &Arc<Gpu>, vocabulary: usize) -> Result<Self, CudaError> {
        let (sample, mark_prompt) = (Kernel::new(gpu, "sample")?, Kernel::new(gpu, "mark_prompt")?);
        Ok(Self { sample, mark_prompt, vocabulary })
    }

    /// Numbers from one row of counts to the next, and of logits.
    pub(crate) fn stride(vocabulary: usize) -> usize {
        vocabulary.next_multiple_of(4)
    }

    /// Draws for `sequences` sequences.
    pub(crate) fn sample(
        &self,
        drawn: &Drawn,
        logits: &Buffer<f32>,
        wishes: Wishes,
        penalties: &Penalties,
        sequences: usize,
    ) -> Result<(), CudaError> {
        let [sampled, logprobs, top_ids, top_logprobs] = drawn.places(0).map(|first| drawn.numbers.at(first));
        let stride = Self::stride(self.vocabulary);
        let arguments = args![
            sampled,
            logprobs,
            top_ids,
            top_logprobs,
            logits,
            wishes.ints,
            wishes.floats,
            wishes.shares,
            wishes.guesses,
            &penalties.counts,
            &penalties.penalized,
            self.vocabulary,
            stride,
            usize::from(MOST_TOP),
        ];
        // SAFETY: sequences name rows of logits and of counts that there are.
        unsafe { self.sample.launch(Shape::new([sequences, 1, 1], THREADS), arguments) }
    }

    /// Notes which tokens a prompt has in row `row` of the counts.
    pub(crate) fn mark_prompt(&self, penalties: &Penalties, row: usize, prompt: &Buffer<i32>) -> Result<(), CudaError> {
        let row = penalties.counts.at(row * Self::stride(self.vocabulary));
        let blocks = prompt.len().div_ceil(MARK_THREADS);
        // SAFETY: the row is there; tokens outside the vocabulary are passed over.
        unsafe {
            self.mark_prompt.launch(
                Shape::new([blocks, 1, 1], MARK_THREADS as u32),
                args![row, prompt, prompt.len(), self.vocabulary],
            )
        }
    }
}
