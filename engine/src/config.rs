//! How an engine is sized.

use std::num::NonZeroUsize;

/// Sizes and bounds of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences computed together in one step.
    pub max_batch: usize,
    /// Tokens computed in one step, prefill and decode together.
    pub max_step_tokens: usize,
    /// Requests that may wait for a place in the batch.
    pub max_queue: usize,
    /// Tokens per KV block.
    pub block_size: usize,
    /// Bytes of KV cache; `None` takes a share of the memory that is free.
    pub kv_memory: Option<usize>,
    /// Prompt and answer together; `None` takes the model's own limit.
    pub max_context: Option<usize>,
    /// Threads that compute; `None` takes the cores there are.
    pub threads: Option<NonZeroUsize>,
    /// Events a reader may leave unread before its sequence pauses.
    pub stream_buffer: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_batch: 64,
            max_step_tokens: 512,
            max_queue: 256,
            block_size: 16,
            kv_memory: None,
            max_context: None,
            threads: None,
            stream_buffer: 64,
        }
    }
}
