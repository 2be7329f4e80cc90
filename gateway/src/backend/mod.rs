//! What answers requests: the engine in this process.

mod answer;
mod local;

pub use answer::{Answer, Part};
pub use local::{LocalBackend, StartError};
