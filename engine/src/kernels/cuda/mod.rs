//! The CUDA side: our own kernels on the driver's interface, and cuBLASLt for prompts.
//!
//! - `driver`, `gpu`, `memory`, `launch`, `graph`: the device, its memory, and work on it;
//! - `element`, `format`, `matrix`, `placing`: what rows and weights are made of, and how weights get there;
//! - `products`, with `geometry`, `prompts` and `blas`: linear layers;
//! - `attention`, `kv_cache`, `rows`, `sample`: everything else of a step;
//! - `limits`: what the card can do at most.
//!
//! The kernels are `*.cu` beside these files, compiled by `build.rs`. They are C++ of a kind that a plain compiler
//! takes, too: `engine/cuda/emulator` runs them on the CPU, behind the driver's interface, so that all of this is
//! tested on machines without a GPU.

mod attention;
mod blas;
mod driver;
mod element;
mod format;
mod geometry;
mod gpu;
mod graph;
mod kv_cache;
mod launch;
mod limits;
mod matrix;
mod memory;
mod placing;
mod products;
mod prompts;
mod rows;
mod sample;
#[cfg(test)]
mod tests;

pub(crate) use attention::{Attention, Heads, Places, RowRange, SPLIT, TILE};
pub use driver::CudaError;
pub use element::Element;
pub(crate) use geometry::Kind;
pub use gpu::Gpu;
pub(crate) use graph::{Event, Graph};
pub use kv_cache::{KvCache, KvElement, KvShape};
pub use limits::{MatrixLimit, measure_bandwidth, measure_compute};
pub(crate) use matrix::Stack;
pub(crate) use memory::{Buffer, Pinned};
pub(crate) use placing::Placing;
pub(crate) use products::{Products, RowKinds};
pub(crate) use rows::{Norm, RowKernels};
pub(crate) use sample::{
    Drawn, MOST_TOKENS, MOST_TOP, NO_TOKEN, Penalties, SEQUENCE_FLOATS, SEQUENCE_INTS, SampleKernels, Wishes,
};
