//! A model on a GPU.

use std::sync::Arc;

use super::{Ready, useful_blocks, wanted_context};
use crate::{
    config::EngineConfig,
    error::EngineError,
    generation::Sampling,
    kernels::{
        cpu::MachineLimits,
        cuda::{Gpu, MatrixLimit, measure_bandwidth, measure_compute},
    },
    loader::{LoadedModel, Quantization},
    model::{
        Executor, Logits, StepBatch,
        cuda::{CacheSize, Placed, StepLimits},
    },
};

/// What the kernels need the block size to be a multiple of.
const BLOCK_MULTIPLE: usize = 8;

pub(super) fn prepare(loaded: &LoadedModel, config: &EngineConfig, gpu: &Arc<Gpu>) -> Result<Ready, EngineError> {
    if !config.block_size.is_multiple_of(BLOCK_MULTIPLE) {
        return Err(EngineError::Config(format!(
            "block_size is {}: on a GPU it must be a multiple of {BLOCK_MULTIPLE}",
            config.block_size
        )));
    }
    // Before anything takes the memory that this needs.
    let bandwidth = measure_bandwidth(gpu)?;
    let placed = Placed::new(gpu, &loaded.config, &loaded.weights, loaded.quantize, config.kv_type)?;
    let compute = measure_compute(gpu, placed.element(), loaded.quantize == Some(Quantization::Fp8))?;
    let limits = compute.map(|MatrixLimit { operations_per_second, .. }| MachineLimits {
        bytes_per_second: bandwidth,
        operations_per_second,
    });
    let weight_bytes = placed.weight_bytes();
    let block_bytes = placed.kv_shape(config.block_size).block_bytes();
    let wanted_context = wanted_context(loaded, config);
    let size = CacheSize {
        bytes: config.kv_memory,
        utilization: config.gpu_memory_utilization,
        most: useful_blocks(config, wanted_context),
    };
    let (mut executor, blocks) = placed.executor(StepLimits::of(config, wanted_context), size)?;
    warm_up(&mut executor, config.block_size)?;
    executor.record_usual(config.max_batch, wanted_context)?;
    Ok(Ready {
        executor: Box::new(executor),
        blocks,
        max_context: wanted_context.min(blocks * config.block_size),
        weight_bytes,
        kv_bytes: (blocks * block_bytes) as u64,
        limits,
    })
}

/// Computes a small prompt and an answer's token, so that whatever is prepared on first use is ready.
fn warm_up(executor: &mut impl Executor, block_size: usize) -> Result<(), EngineError> {
    let (slot, prompt) = (0, block_size - 1);
    executor.begin(slot, Sampling { temperature: 0.0, ..Sampling::default() }, None, &[0])?;
    let mut batch = StepBatch::default();
    for (start, tokens) in [(0, prompt), (prompt, 1)] {
        batch.clear();
        batch.push(&vec![0; tokens], start, &[0], block_size, Logits::Last).prompt = prompt;
        executor.launch(&batch)?;
        executor.land()?;
    }
    executor.end(slot);
    Ok(())
}
