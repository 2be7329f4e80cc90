//! The engine in this process, as handlers see it.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use engine::{Engine, EngineError, GenerationRequest, LoadError, ModelInfo, Text, TextError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Answer;
use crate::{
    config::Config,
    error::{ApiError, ErrorCode},
    request::OpenRequest,
    telemetry::{StepTag, Telemetry},
};

/// Bytes up to which text is worked on where it arrived: a fraction of a millisecond.
const INLINE_BYTES: usize = 8 << 10;
/// Long texts worked on at once; they compete with the engine for the cores.
const LONG_TEXTS: usize = 2;

/// The engine could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No model of that name.
    #[error(transparent)]
    Unknown(#[from] crate::model_store::StoreError),
    /// The model's files.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine on them.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A running engine and the bound on tokenisation beside it.
#[derive(Debug)]
pub struct LocalBackend {
    engine: Engine,
    long_texts: Arc<Semaphore>,
    loaded: SystemTime,
}

impl LocalBackend {
    /// Finds the model, loads it, starts the engine and warms it up. Blocks.
    pub fn start(config: &Config, telemetry: &Telemetry) -> Result<Self, StartError> {
        let began = Instant::now();
        let path = crate::model_store::resolve(&config.model.name)?;
        tracing::info!(model = config.model.name, path = %path.display(), "loading the model");
        let model = engine::load(&path, config.model.load_options())?;
        let engine = Engine::start(model, config.engine.engine_config(), telemetry.step_observer())?;
        telemetry.watch_engine(&engine);
        let (info, stats) = (engine.model(), engine.stats());
        tracing::info!(
            model = info.name,
            parameters = info.parameters,
            weight_bytes = info.weight_bytes,
            device = info.device.name(),
            gpu = info.device.info().map(tracing::field::display),
            max_context = info.max_context,
            kv_bytes = info.kv_bytes,
            kv_tokens = stats.kv_blocks_total * config.engine.block_size,
            memory_bytes_per_s = info.limits.map(|limits| limits.bytes_per_second.round()),
            operations_per_s = info.limits.map(|limits| limits.operations_per_second.round()),
            "ready in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        Ok(Self { engine, long_texts: Arc::new(Semaphore::new(LONG_TEXTS)), loaded: SystemTime::now() })
    }

    /// Whether the engine takes no requests any more.
    pub fn has_stopped(&self) -> bool {
        self.engine.has_stopped()
    }

    /// What is known of the model.
    pub fn model(&self) -> &ModelInfo {
        self.engine.model()
    }

    /// When it was ready.
    pub fn loaded(&self) -> SystemTime {
        self.loaded
    }

    /// The tokenizer, for quick questions.
    pub fn text(&self) -> &Text {
        self.engine.text()
    }

    /// Works on `bytes` bytes of text, away from the tasks that serve connections if there are many.
    ///
    /// Work once begun goes on when its client leaves, so the bound is held by the work itself.
    pub async fn with_text<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Text) -> Result<T, TextError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= INLINE_BYTES {
            return Ok(work(self.engine.text())?);
        }
        let gone = |_| ApiError::new(ErrorCode::Internal, "the text could not be worked on");
        let permit = Arc::clone(&self.long_texts).acquire_owned().await.map_err(gone)?;
        let text = self.engine.text().clone();
        let working = tokio::task::spawn_blocking(move || {
            let result = work(&text);
            drop(permit);
            result
        });
        let finished = working.await.map_err(|_| ApiError::new(ErrorCode::Internal, "the text could not be worked on"));
        Ok(finished??)
    }

    /// Queues a generation; dropping the answer cancels it, and so does `abort`.
    pub fn submit(
        &self,
        request: &OpenRequest,
        asked: GenerationRequest,
        abort: &CancellationToken,
    ) -> Result<Answer, ApiError> {
        let waiting = self.engine.stats().waiting;
        request.note(|facts| facts.queue_depth = Some(waiting));
        let tag = request.tag();
        let asked = GenerationRequest { tag: tag.as_ref().map_or(0, StepTag::number), ..asked };
        Ok(Answer::new(self.engine.submit(asked)?, (request.clone(), tag), abort.clone()))
    }

    /// Stops the engine. Blocks for one step at most.
    pub(crate) fn shutdown(&self) {
        self.engine.shutdown();
    }
}
