//! The engine from outside: goldens made with `transformers`, candle as oracle, files of every quality.

mod demo;
mod goldens;
mod loader;
mod quantized;
mod synth;
mod tokenizer;
