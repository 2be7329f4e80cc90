//! End-to-end tests: the real gateway on a real socket, with a collector that says what it got.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounting;
mod bottlenecks;
mod client_spans;
mod collectors;
mod context;
mod device;
mod endings;
mod ledger;
mod privacy;
mod requests;
mod steps;
mod traces;
