//! What a model is computed with: matrix products, attention over paged KV, and the small row operations.
//!
//! The only place of the engine, besides the loader's memory map, with `unsafe`. Every operation gives a
//! row the same bits whatever other rows are in the call, so that a request's tokens don't depend on its
//! batch-mates.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
