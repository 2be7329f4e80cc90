//! Steps on the threads that are here: one at a time, computed and drawn before the launch returns.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{Executor, Landed, Model, ModelSizes, StepBatch};
use crate::{
    error::EngineError,
    generation::Sampling,
    kernels::cpu::Threads,
    sampling::{Sampled, Sampler},
};

/// A model, and the samplers of its sequences.
pub struct CpuExecutor {
    model: Box<dyn Model>,
    /// Those that draw.
    threads: Arc<Threads>,
    /// By slot; locked by the one thread that draws from it.
    samplers: Vec<Mutex<Option<Sampler>>>,
    logits: Vec<f32>,
    landed: Option<Landed>,
}

/// One sequence's draw.
struct Draw<'a> {
    sampler: &'a Mutex<Option<Sampler>>,
    /// The tokens of its rows that want logits, and of those after them: the guesses.
    tokens: &'a [u32],
    logits: &'a mut [f32],
    sampled: Vec<Sampled>,
}

impl CpuExecutor {
    /// An executor around a model; `threads` draw.
    pub fn new(model: Box<dyn Model>, threads: Arc<Threads>) -> Self {
        Self { model, threads, samplers: Vec::new(), logits: Vec::new(), landed: None }
    }

    /// The next tokens of every sequence of the batch that is due any, from the logits at hand.
    fn draw(&mut self, batch: &StepBatch) -> Vec<Vec<Sampled>> {
        let vocabulary = self.model.vocabulary();
        let mut logits = self.logits.as_mut_slice();
        let draws: Vec<_> = batch
            .sequences
            .iter()
            .zip(batch.wanted())
            .map(|(sequence, wanted)| {
                let first = batch.logit_rows[wanted.clone()].first().copied().unwrap_or(sequence.rows.end);
                Mutex::new(Draw {
                    sampler: &self.samplers[sequence.slot],
                    tokens: &batch.tokens[first..sequence.rows.end],
                    logits: logits.split_off_mut(..wanted.len() * vocabulary).unwrap_or_default(),
                    sampled: Vec::new(),
                })
            })
            .collect();
        self.threads.each(draws.len(), |index| {
            draws[index].lock().unwrap_or_else(PoisonError::into_inner).run(vocabulary);
        });
        draws.into_iter().map(|draw| draw.into_inner().unwrap_or_else(PoisonError::into_inner).sampled).collect()
    }
}

impl Draw<'_> {
    /// Draws a token for each row, as long as the one before was guessed right.
    fn run(&mut self, vocabulary: usize) {
        let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sampler) = sampler.as_mut() else { return };
        for (index, row) in self.logits.chunks_exact_mut(vocabulary).enumerate() {
            let Some(token) = sampler.sample(row) else { return };
            let guessed_right = self.tokens.get(index + 1) == Some(&token.id);
            self.sampled.push(token);
            if !guessed_right {
                return;
            }
        }
    }
}

impl Executor for CpuExecutor {
    fn sizes(&self) -> ModelSizes {
        self.model.sizes()
    }

    fn depth(&self) -> usize {
        1
    }

    fn begin(
        &mut self,
        slot: usize,
        sampling: Sampling,
        logprobs: Option<u8>,
        prompt: &[u32],
    ) -> Result<(), EngineError> {
        if self.samplers.len() <= slot {
            self.samplers.resize_with(slot + 1, Mutex::default);
        }
        self.samplers[slot] = Mutex::new(Some(Sampler::new(sampling, logprobs, prompt)));
        Ok(())
    }

    fn end(&mut self, slot: usize) {
        self.samplers[slot] = Mutex::default();
    }

    fn launch(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        self.model.forward(batch, &mut self.logits)?;
        let computed = Instant::now();
        let drawn = self.draw(batch);
        self.landed = Some(Landed { drawn, computed, sampled: Instant::now(), device: None });
        Ok(())
    }

    fn land(&mut self) -> Result<Landed, EngineError> {
        self.landed.take().ok_or_else(|| EngineError::Compute("no step is under way".to_owned()))
    }
}
