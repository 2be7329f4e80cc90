//! A model on the CPU.

use std::sync::Arc;

use super::{Ready, useful_blocks, wanted_context};
use crate::{
    config::{EngineConfig, KvType},
    error::EngineError,
    kernels::cpu::{KvDtype, MachineLimits, Threads},
    loader::LoadedModel,
    memory,
    model::{CpuExecutor, Logits, Model, StepBatch, mistral::Placed},
};

pub(super) fn prepare(loaded: &LoadedModel, config: &EngineConfig) -> Result<Ready, EngineError> {
    let threads = Arc::new(compute_threads(config)?);
    let placed = Placed::new(&loaded.config, &loaded.weights, loaded.quantize, Arc::clone(&threads))?;
    let placed = match config.kv_type {
        KvType::F16 => placed,
        KvType::Q8 => placed.with_kv_dtype(KvDtype::Q8),
    };
    let limits = MachineLimits::of_this_machine(&threads, placed.arithmetic());
    let limits = limits.inspect_err(|error| tracing::warn!(%error, "what the machine can do is not known")).ok();
    let weight_bytes = placed.weight_bytes();
    let block_bytes = placed.kv_shape(config.block_size).block_bytes();
    let wanted_context = wanted_context(loaded, config);
    let blocks = kv_blocks(config, block_bytes, wanted_context)?;
    let max_context = wanted_context.min(blocks * config.block_size);
    let mut model = placed.with_cache(config.block_size, blocks)?;
    warm_up(&mut model, config.block_size.min(max_context))?;
    Ok(Ready {
        executor: Box::new(CpuExecutor::new(Box::new(model), threads)),
        blocks,
        max_context,
        weight_bytes,
        kv_bytes: (blocks * block_bytes) as u64,
        limits,
    })
}

/// The threads that compute, of which the worker's is one.
fn compute_threads(config: &EngineConfig) -> std::io::Result<Threads> {
    match config.threads {
        Some(count) => Threads::new(count.get()),
        None => Threads::of_this_machine(),
    }
}

/// As many blocks as the memory given takes; without one, half of what is free, but no more than a full
/// batch of full contexts could use.
fn kv_blocks(config: &EngineConfig, block_bytes: usize, context: usize) -> Result<usize, EngineError> {
    let useful = useful_blocks(config, context);
    let blocks = match config.kv_memory {
        Some(memory) => (memory / block_bytes).min(useful),
        None => (memory::available() / 2 / block_bytes).min(useful),
    };
    if blocks == 0 {
        return Err(EngineError::Config(format!(
            "the KV cache needs at least {block_bytes} bytes (one block of {} tokens); give it more with kv_memory",
            config.block_size
        )));
    }
    Ok(blocks)
}

/// Computes one small step, so that whatever the kernels prepare on first use is ready.
fn warm_up(model: &mut impl Model, tokens: usize) -> Result<(), EngineError> {
    let mut batch = StepBatch::default();
    batch.push(&vec![0; tokens], 0, &[0], tokens, Logits::Last);
    model.forward(&batch, &mut Vec::new())?;
    batch.clear();
    batch.push(&[0], 0, &[0], tokens, Logits::Last);
    model.forward(&batch, &mut Vec::new())
}
