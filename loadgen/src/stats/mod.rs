//! From records to figures.
//!
//! - `histogram`: one distribution of times;
//! - `aggregate`: records in, counts and distributions kept, memory bounded;
//! - `figures`: every figure of the report, as plain data;
//! - `sample`: a few out of many, each with the same chance;
//! - `summary`: aggregates → figures;
//! - `verdict`: good, acceptable or poor.

mod aggregate;
mod figures;
mod histogram;
mod sample;
mod summary;
mod verdict;

pub use aggregate::{Aggregate, ErrorCount, Window};
pub use figures::{
    ClientCost, Counts, Latencies, PhaseRow, Phases, ServerCheck, Summary, Throughput, Tokens, WindowFacts,
};
pub use histogram::{Distribution, Histogram};
pub use sample::Sample;
pub use verdict::{Grade, Thresholds, Verdict};
