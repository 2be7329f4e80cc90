//! The CPU side: threads over rows or columns, SIMD chosen at run time.

mod attention;
mod dense;
mod disjoint;
mod embedding;
mod kv_cache;
mod lanes;
mod limits;
mod linear;
mod quantized;
mod row_ops;
mod threads;

pub use attention::{Attention, Row};
pub use embedding::Embedding;
pub use kv_cache::{KvCache, KvDtype, KvShape};
pub use limits::{BandwidthProbe, measure_integer_peak};
pub use linear::{Linear, Products};
pub use row_ops::{Rope, add_assign, rms_norm, silu_gate};
pub use threads::Threads;
