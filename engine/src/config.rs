//! How an engine is sized, and what it does in what order.

use std::num::NonZeroUsize;

use crate::{device::Device, scheduler::Policy};

/// Sizes and bounds of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Sequences computed together in one step.
    pub max_batch: usize,
    /// Tokens computed in one step, prefill and decode together; `None` takes what suits the device.
    pub max_step_tokens: Option<usize>,
    /// Requests that may wait for a place in the batch.
    pub max_queue: usize,
    /// Whose prompt is computed next.
    pub policy: Policy,
    /// Whether prompts begin with the KV of what others began with.
    pub prefix_cache: bool,
    /// Tokens that an answer may be guessed to go on with, and verified at once; 0 guesses nothing.
    pub speculative_tokens: usize,
    /// Tokens per KV block.
    pub block_size: usize,
    /// Bytes of KV cache; `None` takes a share of the memory that is free.
    pub kv_memory: Option<usize>,
    /// Of a GPU's memory, the share that weights, KV cache and everything else may take together.
    pub gpu_memory_utilization: f32,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Prompt and answer together; `None` takes the model's own limit.
    pub max_context: Option<usize>,
    /// Threads that compute; `None` takes the cores there are.
    pub threads: Option<NonZeroUsize>,
    /// Events a reader may leave unread before its sequence pauses.
    pub stream_buffer: usize,
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16 bits per number; single precision for a model in single precision.
    #[default]
    F16,
    /// 8 bits per number.
    Q8,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_batch: 64,
            max_step_tokens: None,
            max_queue: 256,
            policy: Policy::default(),
            prefix_cache: true,
            speculative_tokens: 0,
            block_size: 16,
            kv_memory: None,
            gpu_memory_utilization: 0.9,
            kv_type: KvType::default(),
            max_context: None,
            threads: None,
            stream_buffer: 64,
        }
    }
}

/// Tokens of a step where the CPU computes: enough to fill its cores, few enough that answers do not wait long.
const CPU_STEP_TOKENS: usize = 128;
/// The same for a GPU, whose matrix units want more.
#[cfg(feature = "cuda")]
const GPU_STEP_TOKENS: usize = 2048;

impl EngineConfig {
    /// Tokens computed in one step.
    pub fn step_tokens(&self) -> usize {
        self.max_step_tokens.unwrap_or(CPU_STEP_TOKENS)
    }

    /// What was left open, as it suits the device.
    pub(crate) fn for_device(mut self, device: &Device) -> Self {
        self.max_step_tokens.get_or_insert(match device {
            Device::Cpu => CPU_STEP_TOKENS,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => GPU_STEP_TOKENS,
        });
        self
    }
}
