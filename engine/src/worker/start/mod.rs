//! From a loaded model to a running worker: weights in place, KV cache sized, caches warm.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use super::{Worker, slots::Slots};
use crate::{
    config::{EngineConfig, KvType},
    error::EngineError,
    handle::{Command, EngineStats, ModelInfo, Shared},
    kernels::cpu::{KvDtype, MachineLimits, Threads},
    kv::BlockPool,
    loader::LoadedModel,
    memory,
    model::{CpuExecutor, Executor, Logits, Model, StepBatch, mistral::Placed},
    observer::StepObserver,
    scheduler::{Limits, Scheduler},
    text::Text,
};

/// What a worker is connected to.
pub(crate) struct Surroundings {
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) observer: Box<dyn StepObserver>,
}

/// A worker that runs.
pub(crate) struct Started {
    pub(crate) info: ModelInfo,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts a worker on `loaded`; returns once a first step was computed.
pub(crate) fn start(
    loaded: LoadedModel,
    config: &EngineConfig,
    surroundings: Surroundings,
) -> Result<Started, EngineError> {
    let threads = Arc::new(compute_threads(config)?);
    let placed = Placed::new(&loaded.config, &loaded.weights, loaded.options.quantize, Arc::clone(&threads))?;
    let placed = match config.kv_type {
        KvType::F16 => placed,
        KvType::Q8 => placed.with_kv_dtype(KvDtype::Q8),
    };
    let limits = MachineLimits::of_this_machine(&threads, placed.arithmetic());
    let limits = limits.inspect_err(|error| tracing::warn!(%error, "what the machine can do is not known")).ok();
    let weight_bytes = placed.weight_bytes();
    let block_bytes = placed.kv_shape(config.block_size).block_bytes();
    let wanted_context = config.max_context.unwrap_or(usize::MAX).min(loaded.config.max_context);
    let blocks = kv_blocks(config, block_bytes, wanted_context)?;
    let max_context = wanted_context.min(blocks * config.block_size);
    let mut model = placed.with_cache(config.block_size, blocks)?;
    warm_up(&mut model, config.block_size.min(max_context))?;

    let info = ModelInfo {
        name: loaded.name,
        parameters: loaded.weights.parameters(),
        weight_bytes,
        kv_bytes: (blocks * block_bytes) as u64,
        config: loaded.config,
        device: "cpu",
        max_context,
        limits,
    };
    let executor = Box::new(CpuExecutor::new(Box::new(model), threads));
    let worker = Prepared { executor, text: loaded.text, blocks, max_context };
    let thread = worker.launch(config, surroundings)?;
    Ok(Started { info, thread })
}

/// An executor that is ready to compute, and the sizes it computes with.
pub(crate) struct Prepared {
    pub(crate) executor: Box<dyn Executor>,
    pub(crate) text: Text,
    pub(crate) blocks: usize,
    pub(crate) max_context: usize,
}

impl Prepared {
    /// Starts the thread.
    pub(crate) fn launch(
        self,
        config: &EngineConfig,
        surroundings: Surroundings,
    ) -> Result<JoinHandle<()>, EngineError> {
        let limits = Limits { max_batch: config.max_batch, max_step_tokens: config.max_step_tokens };
        let mut worker = Worker {
            // What a guess goes on from must be known.
            depth: if config.speculative_tokens > 0 { 1 } else { self.executor.depth() },
            executor: self.executor,
            slots: Slots::default(),
            under_way: VecDeque::new(),
            batch: StepBatch::default(),
            text: self.text,
            scheduler: Scheduler::new(limits, config.policy, BlockPool::new(self.blocks, config.block_size)),
            max_context: self.max_context,
            prefix_cache: config.prefix_cache,
            speculative_tokens: config.speculative_tokens,
            active: HashMap::new(),
            next_id: 0,
            inbox: surroundings.inbox,
            shared: surroundings.shared,
            observer: surroundings.observer,
            stats: EngineStats::default(),
        };
        worker.publish();
        Ok(thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run())?)
    }
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
    let per_sequence = context.div_ceil(config.block_size);
    let useful = per_sequence.saturating_mul(config.max_batch);
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
