//! The engine from outside: goldens made with `transformers`, candle as oracle, the running engine.

mod goldens;
mod quantized;
