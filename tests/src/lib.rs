//! What end-to-end tests need: the real binaries, a collector that misbehaves on demand, a tiny model.
//!
//! - [`collector`]: an OTLP collector, over gRPC and HTTP, that keeps spans and does as it is told;
//! - [`flood`]: requests as fast as they go, most of which are refused;
//! - [`fake`]: a server that takes as long as it is told;
//! - [`gateway`]: the `gateway` binary as a process, stopped when dropped;
//! - [`load`]: the `loadgen` binary as a process;
//! - [`model`]: a model folder with random weights, quick to load and never out of words;
//! - [`proxy`]: a line between the two that is long or slow;
//! - [`trace`]: the spans of one request, and whether they are whole.
//!
//! Nothing here sleeps a fixed time: tests wait for what they need, up to [`PATIENCE`].

use std::time::Duration;

pub mod collector;
pub mod fake;
pub mod flood;
pub mod gateway;
pub mod load;
pub mod model;
pub mod proxy;
pub mod trace;

/// How long to wait for what must happen: far beyond what it takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
