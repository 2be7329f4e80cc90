//! loadgen from outside: the client against a server whose every delay is known, and the binary as a whole.
//!
//! Attacks run only in child processes: goose's stop switch is global to its process.

#![expect(clippy::unwrap_used, reason = "tests")]

mod binary;
mod hostile;
mod mock;
mod stream;
