//! The CPU side: SIMD chosen at run time, work shared among threads.

mod attention;
mod by_rows;
mod dense;
mod gate;
mod kv_cache;
mod lanes;
mod linear;
mod norm;
mod rope;
mod softmax;
mod threads;

pub use attention::{Attention, Chunk};
pub use dense::Dense;
pub use gate::silu_gate;
pub use kv_cache::{KvCache, KvDtype, KvShape, LayerKv};
pub use linear::{Embedding, Linear};
pub use norm::{RmsNorm, add_assign};
pub use rope::Rope;
pub use softmax::{highest, softmax_weights, sum};
pub use threads::Threads;
