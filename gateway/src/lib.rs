//! An inference gateway that shows where the time of every LLM request goes.

pub mod ledger;
pub mod model_store;
pub mod telemetry;
