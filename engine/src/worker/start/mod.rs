//! From a loaded model to a running worker: weights in place, KV cache sized, caches warm.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use super::{Worker, slots::Slots};
use crate::{
    config::EngineConfig,
    device::Device,
    error::EngineError,
    handle::{Command, EngineStats, ModelInfo, Shared},
    kernels::cpu::MachineLimits,
    kv::BlockPool,
    loader::LoadedModel,
    model::{Executor, StepBatch},
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
    let Ready { executor, blocks, max_context, weight_bytes, kv_bytes, limits } = match &loaded.device {
        Device::Cpu => cpu::prepare(&loaded, config)?,
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => cuda::prepare(&loaded, config, gpu)?,
    };
    let info = ModelInfo {
        name: loaded.name,
        parameters: loaded.weights.parameters(),
        weight_bytes,
        kv_bytes,
        config: loaded.config,
        device: loaded.device,
        max_context,
        limits,
    };
    let worker = Prepared { executor, text: loaded.text, blocks, max_context };
    let thread = worker.launch(config, surroundings)?;
    Ok(Started { info, thread })
}

/// A model in place on its device, warm.
struct Ready {
    executor: Box<dyn Executor>,
    /// Blocks of the KV cache.
    blocks: usize,
    max_context: usize,
    weight_bytes: u64,
    kv_bytes: u64,
    limits: Option<MachineLimits>,
}

/// The most tokens of prompt and answer together that are asked for, or that the model takes.
fn wanted_context(loaded: &LoadedModel, config: &EngineConfig) -> usize {
    config.max_context.unwrap_or(usize::MAX).min(loaded.config.max_context)
}

/// More blocks than a full batch of full contexts could use are of no use.
fn useful_blocks(config: &EngineConfig, context: usize) -> usize {
    context.div_ceil(config.block_size).saturating_mul(config.max_batch)
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
        let limits = Limits { max_batch: config.max_batch, max_step_tokens: config.step_tokens() };
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
            broken: false,
        };
        worker.publish();
        Ok(thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run())?)
    }
}
