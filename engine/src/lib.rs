//! Mistral inference with continuous batching over a paged KV cache.
//!
//! The way of a request through the files:
//!
//! - [`generation`]: what is asked ([`GenerationRequest`]) and what comes back ([`Event`]); [`stamps`]: when, and what
//!   the time went into;
//! - [`handle`]: [`Engine`], the cloneable handle: `submit` gives a [`Generation`], dropping it cancels;
//! - [`observer`]: what is told of every step: who is in it, what it had to do, and where its time went;
//! - `worker`: the one thread that owns the model and the KV blocks;
//! - [`scheduler`]: sans-io: which sequences run in the next step, and which blocks they hold;
//! - [`kv`]: the block pool and the prefix cache;
//! - [`model`]: a flat ragged [`StepBatch`](model::StepBatch) goes into an [`Executor`](model::Executor), tokens come
//!   out;
//! - [`kernels`]: what a model is computed with, on the CPU and (feature `cuda`) on a GPU;
//! - [`device`]: which of the two it is;
//! - [`loader`]: configuration and weights from a Hugging Face folder or a GGUF file;
//! - [`synth`]: models with random weights, for speed work;
//! - [`text`]: tokenizer, chat template, incremental detokenizer, stop strings;
//! - [`sampling`]: logits to a token, seeded per request.
//!
//! Invariants, as absences: no HTTP and no telemetry SDK here (instants are stamped, others make spans of
//! them); no clock or randomness in `scheduler`; no request in `model`; `unsafe` only in `kernels` and in
//! the loader's memory map.

pub mod config;
pub mod device;
pub mod error;
pub mod generation;
pub mod handle;
pub mod kernels;
pub mod kv;
pub mod loader;
pub mod model;
pub mod observer;
pub mod sampling;
pub mod scheduler;
pub mod stamps;
pub mod synth;
pub mod text;

mod memory;
mod worker;

pub use config::{EngineConfig, KvType};
pub use device::{Device, DeviceChoice, DeviceInfo, DeviceMemory};
pub use error::{EngineError, LoadError, SubmitError, TextError};
pub use generation::{Event, Failure, FinishReason, Finished, GenerationRequest, Sampling, Token, TokenLogprob, Usage};
pub use handle::{Engine, EngineStats, Generation, ModelInfo};
pub use kernels::cpu::MachineLimits;
pub use loader::{LoadedModel, ModelConfig, Quantization, load};
pub use model::Work;
pub use observer::{StepObserver, StepReport, StepStart};
pub use scheduler::Policy;
pub use stamps::{Blocked, Interruption, InterruptionCause, PhaseSteps, Stamps};
pub use text::{ChatMessage, GgufVocabulary, Piece, PromptTemplate, SpecialTokens, Text, TextStream};
