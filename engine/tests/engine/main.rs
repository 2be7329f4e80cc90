//! The engine from outside: goldens made with `transformers`, candle as oracle, files of every quality.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bench;
#[cfg(feature = "cuda")]
mod cuda;
mod demo;
mod determinism;
mod goldens;
mod loader;
mod quantized;
mod synth;
mod tokenizer;
