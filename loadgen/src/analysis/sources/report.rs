//! The report of a run: its rows, and what the server said of itself.

use std::io::Read;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::gathering::Gathering;
use crate::record::Row;
use crate::report::SCHEMA;
use crate::server::ServerFacts;
use crate::words::counted;

#[derive(Deserialize)]
struct Report {
    schema: String,
    #[serde(default)]
    started_unix_s: f64,
    #[serde(default)]
    window: Option<Window>,
    #[serde(default)]
    server: Option<ServerFacts>,
    #[serde(default)]
    rows_drawn_from: u64,
    #[serde(default)]
    rows: Option<Vec<Row>>,
}

#[derive(Deserialize)]
struct Window {
    start_us: u64,
    ramp_excluded: bool,
}

pub(super) fn read(file: impl Read, gathering: &mut Gathering) -> anyhow::Result<String> {
    let report: Report = serde_json::from_reader(file).context("is not a report that can be read")?;
    ensure!(report.schema == SCHEMA, "has the schema {:?}, not {SCHEMA:?}", shortened(&report.schema));
    let Some(rows) = report.rows else { bail!("has no rows to analyse") };
    let clock = gathering.clock(report.started_unix_s);
    let steady_us = report.window.filter(|window| window.ramp_excluded).map_or(0, |window| window.start_us);
    for row in &rows {
        gathering.add_row(row, clock, steady_us);
    }
    gathering.add_run(report.server, report.rows_drawn_from.max(rows.len() as u64));
    let facts = if report.server.is_some() { ", with the server's own figures" } else { "" };
    Ok(format!("{}{facts}", counted(rows.len() as u64, "request")))
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
