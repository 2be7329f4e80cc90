//! From records to figures.
//!
//! - `histogram`: one distribution of times;
//! - `aggregate`: records in, counts and distributions kept, memory bounded;
//! - `summary`: every figure of the report, as plain data;
//! - `verdict`: good, acceptable or poor.

mod aggregate;
mod histogram;
mod summary;
mod verdict;

pub use aggregate::{Aggregate, ErrorCount, Window};
pub use histogram::{Distribution, Histogram};
pub use summary::{
    ClientCost, Counts, Latencies, PhaseRow, Phases, ServerCheck, Summary, Throughput, Tokens, WindowFacts,
};
pub use verdict::{Grade, Thresholds, Verdict};
