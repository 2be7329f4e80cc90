//! How an engine is sized, and what it does in what order.

use std::num::NonZeroUsize;

use crate::scheduler::Policy;

/// Sizes and bounds of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences computed together in one step.
    pub max_batch: usize,
    /// Tokens computed in one step, prefill and decode together.
    pub max_step_tokens: usize,
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
            max_step_tokens: 128,
            max_queue: 256,
            policy: Policy::default(),
            prefix_cache: true,
            speculative_tokens: 0,
            block_size: 16,
            kv_memory: None,
            kv_type: KvType::default(),
            max_context: None,
            threads: None,
            stream_buffer: 64,
        }
    }
}
