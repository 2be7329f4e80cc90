//! What a run leaves behind: one [`Report`], shown on the terminal and written as JSON.

mod json;
mod progress;
mod terminal;

use std::time::Duration;

use serde::Serialize;

use crate::cli::Plan;
use crate::scenarios::Ending;
use crate::stats::{ClientCost, ServerCheck, Summary};

pub use json::write_json;
pub use progress::progress;
pub use terminal::write_terminal;

/// Names the shape of the JSON; its number rises when a field changes its meaning or goes.
pub const SCHEMA: &str = "loadgen.report/1";

/// Everything that is printed, and the whole of the JSON report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The version of loadgen.
    pub version: &'static str,
    /// When the run began, in seconds since 1970.
    pub started_unix_s: f64,
    /// Whether Ctrl-C ended the run.
    pub interrupted: bool,
    /// What was asked for, with the defaults.
    pub config: Plan,
    /// What the requests say; its fields stand beside these.
    #[serde(flatten)]
    pub summary: Summary,
    /// What the measurement itself costs, in milliseconds.
    pub client_cost_ms: ClientCost,
    /// This side against the server's histogram, in milliseconds; absent where the server has none.
    pub server_check_ms: Option<ServerCheck>,
}

impl Report {
    /// Puts the parts together; `started` counts from 1970.
    pub fn new(plan: Plan, started: Duration, ending: Ending, summary: Summary, measurement: Measurement) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            started_unix_s: started.as_secs_f64(),
            interrupted: ending != Ending::TimeUp,
            config: plan,
            summary,
            client_cost_ms: measurement.client_cost,
            server_check_ms: measurement.server_check,
        }
    }
}

/// How far the figures can be trusted.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    /// What measuring costs.
    pub client_cost: ClientCost,
    /// The server's own account beside ours.
    pub server_check: Option<ServerCheck>,
}
