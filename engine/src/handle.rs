//! [`Engine`]: the handle through which everyone else reaches the worker thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::EngineConfig,
    error::{EngineError, SubmitError},
    generation::{Event, GenerationRequest, Stamps},
    loader::{LoadedModel, ModelConfig},
    text::Text,
};

/// A running engine; clones share it. It stops when the last clone is dropped or at [`Engine::shutdown`].
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<()>,
}

/// What is known of the model an engine serves.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The file's or folder's name.
    pub name: String,
    /// The architecture's sizes.
    pub config: ModelConfig,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Where it computes: `cpu` or `cuda`.
    pub device: &'static str,
    /// The most tokens of prompt and answer together.
    pub max_context: usize,
}

/// A reading of the engine's gauges and counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests waiting for their first step.
    pub waiting: usize,
    /// Requests with KV blocks.
    pub running: usize,
    /// KV blocks in use.
    pub kv_blocks_used: usize,
    /// KV blocks there are.
    pub kv_blocks_total: usize,
    /// Sequences evicted to be recomputed, since start.
    pub preemptions: u64,
    /// Steps computed, since start.
    pub steps: u64,
}

/// One step, told to the observer after it was computed.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// When planning began.
    pub started: Instant,
    /// From there to the last event sent.
    pub duration: Duration,
    /// Sequences in the step.
    pub sequences: usize,
    /// Prompt tokens computed.
    pub prefill_tokens: usize,
    /// Sequences that gained a token.
    pub decode_tokens: usize,
    /// KV blocks in use after it.
    pub kv_blocks_used: usize,
}

/// Told of every step, on the engine's thread: must be quick.
pub type StepObserver = Box<dyn Fn(&StepReport) + Send>;

impl Engine {
    /// Places the weights, sizes the KV cache, runs one warm-up step and starts the thread. Blocks.
    pub fn start(model: LoadedModel, config: EngineConfig, observer: StepObserver) -> Result<Self, EngineError> {
        let _ = (model, config, observer);
        todo!("engine")
    }

    /// Queues a request; dropping the [`Generation`] cancels it.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let _ = (request, &self.inner);
        todo!("engine")
    }

    /// The model's tokenizer and template.
    pub fn text(&self) -> &Text {
        todo!("engine")
    }

    /// What is known of the model.
    pub fn model(&self) -> &ModelInfo {
        todo!("engine")
    }

    /// The gauges and counters now.
    pub fn stats(&self) -> EngineStats {
        todo!("engine")
    }

    /// Fails what is still running and joins the thread. Blocks for one step at most.
    pub fn shutdown(&self) {
        todo!("engine")
    }
}

/// One running generation: a bounded stream of events.
#[derive(Debug)]
pub struct Generation {
    inner: Arc<()>,
}

impl Generation {
    /// The next event; `None` after the last, or when the engine stopped.
    pub async fn next(&mut self) -> Option<Event> {
        let _ = &self.inner;
        todo!("engine")
    }

    /// When things happened so far.
    pub fn stamps(&self) -> Stamps {
        todo!("engine")
    }
}
