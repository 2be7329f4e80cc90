//! The model under measurement: the only file here that knows how the engine's model is called.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use engine::{
    EngineConfig,
    kernels::cpu::{KvShape, Threads},
    loader::open_weights,
    model::{
        Logits, Model, ModelSizes, StepBatch,
        mistral::{Mistral, Placed},
    },
};

use crate::{args::Args, rows::Row};

/// A model with a cache that the largest row fits, every sequence in blocks of its own.
pub(crate) struct Subject {
    model: Mistral,
    sizes: ModelSizes,
    block_size: usize,
    blocks_per_sequence: usize,
    /// For token ids that differ from step to step.
    tokens_made: usize,
    batch: StepBatch,
    logits: Vec<f32>,
}

impl Subject {
    /// Places the weights and fills the cache.
    pub(crate) fn open(args: &Args, rows: &[Row], threads: Arc<Threads>) -> anyhow::Result<Self> {
        let (config, weights) = open_weights(&args.model)?;
        let positions = rows.iter().map(|row| row.prompt + 1).max().unwrap_or(1);
        ensure!(
            positions <= config.max_context,
            "a prompt of {} tokens and one more do not fit the model's context of {}",
            positions - 1,
            config.max_context
        );
        let block_size = EngineConfig::default().block_size;
        let blocks_per_sequence = positions.div_ceil(block_size);
        let sequences = rows.iter().map(|row| row.batch).max().unwrap_or(1);
        let placed = Placed::new(&config, &weights, args.quantize(), Arc::clone(&threads))?;
        let placed = match args.kv_dtype() {
            Some(dtype) => placed.with_kv_dtype(dtype),
            None => placed,
        };
        let shape = placed.kv_shape(block_size);
        let sizes = placed.sizes();
        let blocks = sequences * blocks_per_sequence;
        let mut model = placed.with_cache(block_size, blocks)?;
        fill(&threads, &mut model, shape, blocks);
        let (batch, logits) = (StepBatch::default(), Vec::new());
        Ok(Self { model, sizes, block_size, blocks_per_sequence, tokens_made: 0, batch, logits })
    }

    /// What decides about the work of a row.
    pub(crate) fn sizes(&self) -> &ModelSizes {
        &self.sizes
    }

    /// Computes one pass of `row`; a decode row is always the same step, at the end of its context.
    pub(crate) fn pass(&mut self, row: Row) -> anyhow::Result<Duration> {
        let steps = row.steps();
        let start = Instant::now();
        for (index, positions) in steps.iter().enumerate() {
            let logits = if index + 1 == steps.len() { Logits::Last } else { Logits::None };
            self.batch.clear();
            for sequence in 0..row.batch {
                let tokens: Vec<u32> = (0..positions.len()).map(|_| self.token()).collect();
                let first = sequence * self.blocks_per_sequence;
                let count = positions.end.div_ceil(self.block_size);
                let blocks: Vec<u32> = (first..first + count).map(|block| block as u32).collect();
                self.batch.push(&tokens, positions.start, &blocks, self.block_size, logits);
            }
            self.model.forward(&self.batch, &mut self.logits).context("a step failed")?;
        }
        Ok(start.elapsed())
    }

    /// An id somewhere in the vocabulary.
    fn token(&mut self) -> u32 {
        self.tokens_made += 1;
        (self.tokens_made.wrapping_mul(2_654_435_761) % self.model.vocabulary()) as u32
    }
}

/// Writes something to every position: memory that was never written is all one page of zeros, which costs
/// nothing to read. Computing so many prompts would take minutes, and what they say has no bearing on speed.
fn fill(threads: &Threads, model: &mut Mistral, shape: KvShape, blocks: usize) {
    let width = shape.kv_heads * shape.head_dim;
    let values: Vec<f32> = (0..shape.block_size * width).map(|index| (index % 31) as f32 / 31.0 - 0.5).collect();
    for layer in 0..shape.layers {
        for block in 0..blocks {
            let first = block * shape.block_size;
            let slots: Vec<u32> = (first..first + shape.block_size).map(|slot| slot as u32).collect();
            model.cache_mut().write(threads, layer, &slots, &values, &values);
        }
    }
}
