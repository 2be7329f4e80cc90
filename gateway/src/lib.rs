//! An inference gateway that shows where the time of every LLM request goes.
//!
//! The way of a request through the files:
//!
//! - [`server`] accepts its connection; `connection` is its socket, and knows when the last byte is out;
//! - [`router`] shows every route; [`middleware`] gives it an id, opens its ledger, checks its key and its rate;
//! - [`wire`] reads and checks the body; [`handlers`] ask the [`backend`] and render what comes back;
//! - [`request`] is the request while it is open: its [`ledger`], what is known of it, its trace;
//! - [`telemetry`] turns the closed ledger into spans and histograms; [`recent`] keeps the last ones to look at;
//! - [`error`] is what a client is told when there is no answer.
//!
//! Around them: [`config`] (flags over environment over file over defaults), [`state`] (what handlers may
//! reach), [`model_store`] (models by name), [`shutdown`] (signals).
//!
//! Invariants: handlers know no candle; a request's ledger is closed once, whichever way it ends; dropping
//! a response's body stops its generation; nothing a client sends becomes a label or is logged.

pub mod backend;
pub mod config;
mod connection;
pub mod error;
pub mod handlers;
pub mod ledger;
pub mod middleware;
pub mod model_store;
pub mod recent;
pub mod request;
pub mod router;
mod run;
pub mod server;
pub mod shutdown;
pub mod state;
pub mod telemetry;
pub mod wire;

pub use config::Config;
pub use run::{RunError, run};
