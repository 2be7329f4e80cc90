//! The CPU side: rayon over rows or columns, SIMD chosen at run time.

mod attention;
mod dense;
mod kv_cache;
mod lanes;
mod linear;
mod row_ops;
mod softmax;
mod threads;

pub use attention::{Attention, Row};
pub use dense::Dense;
pub use kv_cache::{KvCache, KvDtype, KvShape};
pub use linear::{Embedding, Linear};
pub use row_ops::{Rope, add_assign, rms_norm, silu_gate};
pub use softmax::{highest, softmax_weights, sum};
pub use threads::Threads;
