//! The engine's errors, one enum per thing a caller can do.

use std::path::PathBuf;

/// A model could not be loaded; every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file was read, but is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The device asked for cannot be had.
    #[error("{0}")]
    Device(String),
}

impl LoadError {
    /// An I/O failure on `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A file whose content is at fault.
    pub fn invalid(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }
}

/// The engine could not be started on a loaded model.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The configuration cannot work with this model or machine.
    #[error("{0}")]
    Config(String),
    /// A computation failed.
    #[error("{0}")]
    Compute(String),
    /// A candle operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The GPU failed, or has no room.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] crate::kernels::cuda::CudaError),
    /// The worker thread could not be started.
    #[error("cannot start the engine thread")]
    Thread(#[from] std::io::Error),
}

impl EngineError {
    /// Whether nothing can be computed any more: a GPU whose kernel faulted gives nothing but errors from then on.
    pub(crate) fn is_final(&self) -> bool {
        #[cfg(feature = "cuda")]
        if let Self::Cuda(error) = self {
            return matches!(error, crate::kernels::cuda::CudaError::Call { .. });
        }
        false
    }
}

/// A request the engine does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests wait as may.
    #[error("the queue is full ({limit} requests wait)")]
    QueueFull {
        /// The bound that was met.
        limit: usize,
    },
    /// Prompt and answer would not fit.
    #[error("the prompt has {prompt_tokens} tokens; the model's context takes {limit}, answer included")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// The most that prompt and one answer token may be.
        limit: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The engine no longer takes requests.
    #[error("the engine has stopped")]
    Stopped,
}

/// Text could not be turned into tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The tokenizer refused the text.
    #[error("cannot tokenize: {0}")]
    Tokenize(String),
    /// The chat template failed on these messages.
    #[error("chat template: {0}")]
    Template(String),
    /// An id outside the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocabulary}")]
    UnknownId {
        /// The id given.
        id: u32,
        /// The vocabulary's size.
        vocabulary: usize,
    },
}
