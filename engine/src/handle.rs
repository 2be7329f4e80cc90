//! [`Engine`]: the handle through which everyone else reaches the worker thread.
//!
//! A request goes over a command channel; its events come back over a bounded channel of its own, so a slow
//! reader holds up nobody else. Dropping a [`Generation`] closes that channel, which is how the worker
//! learns that nobody is interested any more.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc as std_mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    config::EngineConfig,
    device::{Device, DeviceMemory},
    error::{EngineError, SubmitError},
    generation::{Event, GenerationRequest},
    kernels::cpu::MachineLimits,
    kv::{BlockKey, KeyChain},
    loader::{LoadedModel, ModelConfig},
    observer::StepObserver,
    stamps::Stamps,
    text::Text,
    worker::{self, attribution::Attribution, queueing::Queueing},
};

/// A running engine; clones share it. It stops when the last clone is dropped or at [`Engine::shutdown`].
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: std_mpsc::Sender<Command>,
    shared: Arc<Shared>,
    text: Text,
    model: ModelInfo,
    config: EngineConfig,
    thread: Mutex<Option<JoinHandle<()>>>,
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
    /// Bytes of weights as they are computed with: less than in the file if they were quantised.
    pub weight_bytes: u64,
    /// Bytes of KV cache.
    pub kv_bytes: u64,
    /// Where it computes.
    pub device: Device,
    /// The most tokens of prompt and answer together.
    pub max_context: usize,
    /// What the machine can do at most, with this model's weights; `None` where it could not be measured.
    pub limits: Option<MachineLimits>,
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
    /// Prompt tokens looked for in the prefix cache, since start.
    pub prefix_cache_lookups: u64,
    /// Prompt tokens found there, since start.
    pub prefix_cache_hits: u64,
    /// Tokens that answers were guessed to go on with, since start.
    pub speculative_proposed: u64,
    /// Of these, how many answers did go on with.
    pub speculative_accepted: u64,
}

/// What handles and worker both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The worker's latest reading; `waiting` is kept beside it.
    pub(crate) stats: Mutex<EngineStats>,
    /// Set when the worker computes nothing any more.
    pub(crate) stopped: AtomicBool,
    waiting: AtomicUsize,
}

/// A request's place in the queue; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Shared>);

impl Ticket {
    fn take(shared: &Arc<Shared>, limit: usize) -> Option<Self> {
        let more = |waiting: usize| (waiting < limit).then_some(waiting + 1);
        shared.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A new request.
    Submit(Box<Job>),
    /// Some reader left or read on: look again.
    Wake,
    /// End.
    Shutdown,
}

/// A request on its way to the worker.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: GenerationRequest,
    /// What the prompt's full blocks contain; empty without a prefix cache.
    pub(crate) keys: Vec<BlockKey>,
    /// Goes on with the keys as the answer grows.
    pub(crate) chain: Option<KeyChain>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) ticket: Ticket,
}

/// What worker and reader both see of one generation.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    record: Mutex<Record>,
    /// Set by the worker when it waits for the reader.
    pub(crate) stalled: AtomicBool,
}

/// When things happened, and where time went.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) stamps: Stamps,
    pub(crate) queueing: Queueing,
    pub(crate) time: Attribution,
}

impl Progress {
    /// The record, for reading and writing.
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Nothing more is counted.
    pub(crate) fn end(&mut self, now: Instant) {
        self.queueing.planned(None, now);
        self.time.end(now);
    }

    /// The stamps, with what is under way counted up to now.
    fn stamps(&self) -> Stamps {
        let now = Instant::now();
        let (mut stamps, mut time, mut queueing) = (self.stamps.clone(), self.time.clone(), self.queueing);
        queueing.settle(now);
        stamps.blocked = queueing.blocked();
        time.settle(now);
        time.write(&mut stamps);
        stamps
    }
}

impl Engine {
    /// Places the weights, measures the machine, sizes the KV cache, runs a warm-up step and starts the thread.
    /// Blocks.
    pub fn start(
        model: LoadedModel,
        config: EngineConfig,
        observer: Box<dyn StepObserver>,
    ) -> Result<Self, EngineError> {
        let config = config.for_device(&model.device);
        let (commands, inbox) = std_mpsc::channel();
        let shared = Arc::new(Shared::default());
        let text = model.text.clone();
        let started =
            worker::start(model, &config, worker::Surroundings { inbox, shared: Arc::clone(&shared), observer })?;
        let inner =
            Inner { commands, shared, text, model: started.info, config, thread: Mutex::new(Some(started.thread)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// An engine around a scripted executor.
    #[cfg(test)]
    pub(crate) fn start_prepared(
        prepared: worker::Prepared,
        config: EngineConfig,
        model: ModelInfo,
        observer: Box<dyn StepObserver>,
    ) -> Self {
        let (commands, inbox) = std_mpsc::channel();
        let shared = Arc::new(Shared::default());
        let text = prepared.text.clone();
        let surroundings = worker::Surroundings { inbox, shared: Arc::clone(&shared), observer };
        let thread = prepared.launch(&config, surroundings).expect("a thread can be started");
        let inner = Inner { commands, shared, text, model, config, thread: Mutex::new(Some(thread)) };
        Self { inner: Arc::new(inner) }
    }

    /// Queues a request; dropping the [`Generation`] cancels it.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let inner = &self.inner;
        let limit = inner.model.max_context;
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if request.prompt.len() >= limit {
            return Err(SubmitError::PromptTooLong { prompt_tokens: request.prompt.len(), limit });
        }
        let queue = inner.config.max_queue;
        let ticket = Ticket::take(&inner.shared, queue).ok_or(SubmitError::QueueFull { limit: queue })?;
        // One place more than may be filled with tokens: the end of the stream always fits.
        let (events, receiver) = mpsc::channel(inner.config.stream_buffer + 1);
        let progress = Arc::new(Progress::default());
        {
            let stamps = &mut progress.record().stamps;
            stamps.queued = Some(Instant::now());
            stamps.usage.prompt_tokens = request.prompt.len() as u32;
        }
        // Hashed here, not on the engine's thread.
        let mut chain = inner.config.prefix_cache.then(|| KeyChain::new(request.cache_salt, inner.config.block_size));
        let keys = chain.as_mut().map_or_else(Vec::new, |chain| chain.extend(&request.prompt));
        let job = Job { request, keys, chain, events, progress: Arc::clone(&progress), ticket };
        inner.commands.send(Command::Submit(Box::new(job))).map_err(|_| SubmitError::Stopped)?;
        Ok(Generation { events: receiver, progress, commands: inner.commands.clone() })
    }

    /// The model's tokenizer and template.
    pub fn text(&self) -> &Text {
        &self.inner.text
    }

    /// What is known of the model.
    pub fn model(&self) -> &ModelInfo {
        &self.inner.model
    }

    /// How it is sized.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// The gauges and counters now.
    pub fn stats(&self) -> EngineStats {
        let stats = *self.inner.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        EngineStats { waiting: self.inner.shared.waiting.load(Ordering::Relaxed), ..stats }
    }

    /// Whether it takes no requests any more: it was shut down, or its device failed.
    pub fn has_stopped(&self) -> bool {
        self.inner.shared.stopped.load(Ordering::Acquire)
    }

    /// The device's memory now, if it has some of its own.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        self.inner.model.device.memory()
    }

    /// Ends what is still running with [`Event::Failed`] and joins the thread. Blocks for the steps under
    /// way at most.
    pub fn shutdown(&self) {
        let _ = self.inner.commands.send(Command::Shutdown);
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Shutdown);
    }
}

/// One running generation: a bounded stream of events.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<Event>,
    progress: Arc<Progress>,
    commands: std_mpsc::Sender<Command>,
}

impl Generation {
    /// The next event; `None` after the last, or when the engine is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        if self.progress.stalled.swap(false, Ordering::AcqRel) {
            let _ = self.commands.send(Command::Wake);
        }
        event
    }

    /// When things happened so far.
    pub fn stamps(&self) -> Stamps {
        self.progress.record().stamps()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.events.close();
        let _ = self.commands.send(Command::Wake);
    }
}
