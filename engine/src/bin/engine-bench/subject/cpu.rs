//! The model on the CPU.

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use engine::{
    kernels::cpu::{BandwidthProbe, KvShape, Threads, measure_integer_peak},
    loader::open_weights,
    model::{
        Model, ModelSizes,
        mistral::{Mistral, Placed},
    },
};

use super::{
    Limits, Passes, Subject,
    steps::{Step, Steps},
};
use crate::{args::Args, rows::Row};

/// The model, and the threads that compute it.
pub(super) struct CpuSubject {
    model: Mistral,
    sizes: ModelSizes,
    threads: Arc<Threads>,
    probe: BandwidthProbe,
    steps: Steps,
    step_tokens: usize,
    logits: Vec<f32>,
}

impl CpuSubject {
    /// Places the weights and fills the cache.
    pub(super) fn open(args: &Args, rows: &[Row], step_tokens: usize) -> anyhow::Result<Self> {
        let threads = Arc::new(Threads::new(args.threads()).context("cannot start threads")?);
        let (config, weights) = open_weights(&args.model)?;
        let steps = Steps::new(&config, rows)?;
        let placed = Placed::new(&config, &weights, args.quantize(), Arc::clone(&threads))?;
        let placed = match args.kv_dtype() {
            Some(dtype) => placed.with_kv_dtype(dtype),
            None => placed,
        };
        let shape = placed.kv_shape(steps.block_size);
        let sizes = placed.sizes();
        let mut model = placed.with_cache(steps.block_size, steps.blocks())?;
        fill(&threads, &mut model, shape, steps.blocks());
        let probe = BandwidthProbe::new(&threads).context("cannot measure memory bandwidth")?;
        Ok(Self { model, sizes, threads, probe, steps, step_tokens, logits: Vec::new() })
    }

    /// Computes one pass; gives its seconds.
    fn pass(&mut self, row: Row) -> anyhow::Result<f64> {
        let start = Instant::now();
        for step in Step::of(row, self.step_tokens) {
            self.model.forward(self.steps.lay_out(step), &mut self.logits).context("a step failed")?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Subject for CpuSubject {
    fn sizes(&self) -> ModelSizes {
        self.sizes
    }

    fn limits(&self) -> anyhow::Result<Limits> {
        Ok(Limits {
            bandwidth: self.probe.measure(&self.threads),
            compute: Some(measure_integer_peak(&self.threads)),
            operands: "8-bit",
        })
    }

    fn passes(&mut self, row: Row, count: u32) -> anyhow::Result<Passes> {
        self.pass(row)?;
        let seconds = (0..count).map(|_| self.pass(row)).collect::<anyhow::Result<_>>()?;
        Ok(Passes { seconds, host_overhead: None })
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
