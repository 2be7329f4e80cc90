//! What a run leaves behind: one [`Report`], shown on the terminal and written as JSON.

mod analysis;
mod json;
mod progress;
mod server;
mod terminal;

use serde::Serialize;

use crate::analysis::Analysis;
use crate::cli::Plan;
use crate::record::Row;
use crate::server::ServerFacts;
use crate::spans::SpanCounts;
use crate::stats::{ClientCost, ServerCheck, Summary};

pub use analysis::{write_analysis, write_analysis_json};
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
    /// The run's epoch, in seconds since 1970.
    pub started_unix_s: f64,
    /// Whether a signal ended the run.
    pub interrupted: bool,
    /// What was asked for, with the defaults.
    pub config: Plan,
    /// What the requests say; its fields stand beside these.
    #[serde(flatten)]
    pub summary: Summary,
    /// What the server says of itself; absent where it says nothing.
    pub server: Option<ServerFacts>,
    /// What the measurement itself costs, in milliseconds.
    pub client_cost_ms: ClientCost,
    /// This side against the server's histogram, in milliseconds; absent where the server has none.
    pub server_check_ms: Option<ServerCheck>,
    /// What became of this side's spans; absent when none were to be exported.
    pub client_spans: Option<SpanCounts>,
    /// What holds the server back, by the rows below.
    pub analysis: Analysis,
    /// How many requests the rows were drawn from.
    pub rows_drawn_from: u64,
    /// Requests of the whole run, in the order they were sent; one line each.
    #[serde(skip)]
    pub rows: Vec<Row>,
}
