//! Why a model could not be fetched, said so that the reader knows what to do.

use std::path::PathBuf;

use super::progress::Bytes;

/// A model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name means no model.
    #[error("{0}")]
    Source(String),
    /// The Hub's address cannot be used.
    #[error("HF_ENDPOINT: {0}")]
    Endpoint(String),
    /// The token cannot be sent.
    #[error("HF_TOKEN has characters that cannot be sent")]
    Token,
    /// The model's licence must be accepted first, or it is private.
    #[error(
        "{what} is gated or private: accept its licence at {page}, then set HF_TOKEN to a token of that account ({status})"
    )]
    Gated {
        /// The repository or file.
        what: String,
        /// Where to accept it.
        page: String,
        /// The Hub's answer.
        status: u16,
    },
    /// The Hub has no such thing.
    #[error("{what} is not there (404): see {page}")]
    Missing {
        /// The repository or file.
        what: String,
        /// The repository's page.
        page: String,
    },
    /// The repository has nothing that could be loaded.
    #[error("{repository} {reason}")]
    Contents {
        /// `owner/repository`.
        repository: String,
        /// What is wrong with what it holds.
        reason: String,
    },
    /// The Hub answered what a Hub does not.
    #[error("the Hub's answer for {what}: {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The connection broke too often.
    #[error("{file}: gave up after {attempts} attempts without progress ({reason}); pull again to continue")]
    Broken {
        /// What was fetched.
        file: String,
        /// Attempts in a row that brought nothing.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
    /// There is no room for it.
    #[error("{} has {} free, and {} are needed", directory.display(), Bytes(*free), Bytes(*needed))]
    Space {
        /// Where it would go.
        directory: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are still to come.
        needed: u64,
    },
    /// What arrived is not what the Hub announced; it was deleted.
    #[error("{file} arrived damaged and was deleted: its SHA-256 is {found}, and should be {expected}; pull again")]
    Checksum {
        /// The file.
        file: String,
        /// As announced.
        expected: String,
        /// As computed.
        found: String,
    },
    /// Another process fetches the same file.
    #[error("{} is being written by another pull", .0.display())]
    Busy(PathBuf),
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl PullError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io { path: path.into(), source }
    }
}
