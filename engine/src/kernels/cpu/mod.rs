//! The CPU side: SIMD chosen at run time, work shared among threads.

mod attention;
mod by_rows;
mod dense;
mod disjoint;
mod embedding;
mod gate;
mod kv_cache;
mod lanes;
mod limits;
mod linear;
mod norm;
mod quantized;
mod rope;
mod signed_bytes;
mod softmax;
mod threads;

pub use attention::{Attention, Chunk};
pub use embedding::Embedding;
pub use gate::silu_gate;
pub use kv_cache::{KvCache, KvDtype, KvShape, LayerKv};
pub use limits::{Arithmetic, BandwidthProbe, MachineLimits, measure_integer_peak};
#[cfg(all(feature = "cuda", test))]
pub(crate) use linear::blocks as quantized_blocks;
#[cfg(feature = "cuda")]
pub(crate) use linear::quantize_rows;
pub use linear::{Linear, Products, WeightSize};
pub use norm::RmsNorm;
pub use rope::Rope;
#[cfg(feature = "cuda")]
pub(crate) use rope::inverse_frequencies;
pub use softmax::softmax_weights;
pub use threads::Threads;
