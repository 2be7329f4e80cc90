//! The engine from outside: goldens made with `transformers`, candle as oracle, files of every quality.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bench;
mod demo;
mod goldens;
mod loader;
mod prefix_cache;
mod quantized;
mod synth;
mod tokenizer;
