//! How the engine is sized, and what it does in what order.

use std::num::NonZeroUsize;

use engine::{EngineConfig, KvType, Policy};
use serde::{Deserialize, Serialize};

use super::{ByteSize, Violation, within};

/// The `[engine]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Sequences computed together in one step.
    pub max_batch: usize,
    /// Tokens computed in one step, prefill and decode together; what suits the device unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_step_tokens: Option<usize>,
    /// Requests that may wait for a place in the batch.
    pub max_queue: usize,
    /// Whose prompt is computed next.
    pub policy: PolicyName,
    /// Whether prompts begin with the KV of what earlier ones of the same caller began with.
    pub prefix_cache: bool,
    /// Tokens that an answer may be guessed to go on with, and verified at once; 0 guesses nothing.
    pub speculative_tokens: usize,
    /// Tokens per KV block.
    pub block_size: usize,
    /// Memory for the KV cache; a share of what is free unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_memory: Option<ByteSize>,
    /// Of a GPU's memory, the share that weights, KV cache and everything else may take together.
    pub gpu_memory_utilization: f32,
    /// How keys and values are stored.
    pub kv_type: KvTypeName,
    /// Tokens of prompt and answer together; the model's own limit unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_context: Option<usize>,
    /// Threads that compute; the cores there are unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
}

/// `--policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// In order of arrival.
    #[default]
    Fcfs,
    /// The least left to compute first; nobody is passed over for long.
    ShortestPrompt,
}

/// `--kv-type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KvTypeName {
    /// 16 bits per number.
    #[default]
    F16,
    /// 8 bits per number: half the memory, and half the reading at long contexts.
    Q8,
}

impl Default for EngineSettings {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            max_batch: engine.max_batch,
            max_step_tokens: engine.max_step_tokens,
            max_queue: engine.max_queue,
            policy: PolicyName::default(),
            prefix_cache: engine.prefix_cache,
            speculative_tokens: engine.speculative_tokens,
            block_size: engine.block_size,
            kv_memory: engine.kv_memory.map(ByteSize),
            gpu_memory_utilization: engine.gpu_memory_utilization,
            kv_type: KvTypeName::default(),
            max_context: engine.max_context,
            threads: engine.threads,
        }
    }
}

impl EngineSettings {
    /// As the engine takes it.
    pub fn engine_config(&self) -> EngineConfig {
        EngineConfig {
            max_batch: self.max_batch,
            max_step_tokens: self.max_step_tokens,
            max_queue: self.max_queue,
            policy: match self.policy {
                PolicyName::Fcfs => Policy::Fcfs,
                PolicyName::ShortestPrompt => Policy::ShortestPrompt,
            },
            prefix_cache: self.prefix_cache,
            speculative_tokens: self.speculative_tokens,
            block_size: self.block_size,
            kv_memory: self.kv_memory.map(|size| size.0),
            gpu_memory_utilization: self.gpu_memory_utilization,
            kv_type: match self.kv_type {
                KvTypeName::F16 => KvType::F16,
                KvTypeName::Q8 => KvType::Q8,
            },
            max_context: self.max_context,
            threads: self.threads,
            ..EngineConfig::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        within("engine.max_batch", self.max_batch, 1..=4096)?;
        if let Some(tokens) = self.max_step_tokens {
            within("engine.max_step_tokens", tokens, 1..=1 << 20)?;
        }
        within("engine.gpu_memory_utilization", self.gpu_memory_utilization, 0.05..=1.0)?;
        within("engine.max_queue", self.max_queue, 1..=1 << 20)?;
        within("engine.speculative_tokens", self.speculative_tokens, 0..=64)?;
        within("engine.block_size", self.block_size, 1..=1024)?;
        if let Some(size) = self.kv_memory {
            within("engine.kv_memory", size, ByteSize(1 << 12)..=ByteSize(1 << 46))?;
        }
        if let Some(tokens) = self.max_context {
            within("engine.max_context", tokens, 2..=1 << 24)?;
        }
        match self.threads {
            Some(threads) => within("engine.threads", threads.get(), 1..=1024),
            None => Ok(()),
        }
    }
}
