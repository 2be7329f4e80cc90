//! An inference gateway that shows where the time of every LLM request goes.

pub mod config;
pub mod ledger;
pub mod telemetry;
