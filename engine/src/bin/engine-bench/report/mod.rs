//! Figures from times, as JSON or as a table.

use std::fmt;

use serde::Serialize;

use crate::{
    args::Args,
    measure::{Measured, Round, median},
    rows::Row,
    whole::Whole,
};

/// The result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    model: String,
    threads: usize,
    limits: Limits,
    rows: Vec<Line>,
}

/// The medians of what was measured beside the rows.
#[derive(Debug, Serialize)]
struct Limits {
    bandwidth_gb_s: f64,
    compute_gop_s: f64,
}

/// One row's figures.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    row: Row,
    /// By the median of all steps.
    tokens_per_s: f64,
    best_tokens_per_s: f64,
    bytes_per_step: u64,
    bandwidth_share: f64,
    compute_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_tokens_per_s: Option<f64>,
    /// The median over rounds of our best step by the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead_share: Option<f64>,
}

impl Report {
    pub(crate) fn new(args: &Args, measured: &[Measured], whole: &[Whole]) -> Self {
        let rounds = || measured.iter().flat_map(|measured| &measured.rounds);
        Self {
            model: args.model.display().to_string(),
            threads: args.threads(),
            limits: Limits {
                bandwidth_gb_s: median(rounds().map(|round| round.limits.bandwidth)) / 1e9,
                compute_gop_s: median(rounds().map(|round| round.limits.compute)) / 1e9,
            },
            rows: measured
                .iter()
                .map(|measured| Line::new(measured, whole.iter().find(|whole| whole.row == measured.row)))
                .collect(),
        }
    }
}

impl Line {
    fn new(measured: &Measured, whole: Option<&Whole>) -> Self {
        let Measured { row, work, rounds } = measured;
        let tokens = row.tokens() as f64;
        let best = |round: &Round| tokens / round.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let seconds = median(rounds.iter().flat_map(|round| round.seconds.iter().copied()));
        let has_peer = rounds.iter().any(|round| round.peer.is_some());
        let over_peer = |value: fn(f64, f64) -> f64| {
            has_peer.then(|| median(rounds.iter().filter_map(|round| Some(value(best(round), round.peer?)))))
        };
        Self {
            row: *row,
            tokens_per_s: tokens / seconds,
            best_tokens_per_s: rounds.iter().map(best).fold(0.0, f64::max),
            bytes_per_step: work.bytes / row.steps().len() as u64,
            bandwidth_share: work.bytes as f64 / seconds / median(rounds.iter().map(|round| round.limits.bandwidth)),
            compute_share: work.operations as f64 / seconds / median(rounds.iter().map(|round| round.limits.compute)),
            peer_tokens_per_s: over_peer(|_, peer| peer),
            peer_ratio: over_peer(|ours, peer| ours / peer),
            engine_tokens_per_s: whole.map(|whole| whole.tokens_per_s),
            overhead_share: whole.map(|whole| whole.overhead),
        }
    }

    /// The cells of a table's line, without the columns that are empty in all lines.
    fn cells(&self, peer: bool, whole: bool) -> Vec<String> {
        let number =
            |value: Option<f64>, digits| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
        let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}%", value * 100.0));
        let mut cells = vec![
            format!("{:?}", self.row.mode).to_lowercase(),
            self.row.batch.to_string(),
            self.row.prompt.to_string(),
            number(Some(self.tokens_per_s), 2),
            number(Some(self.best_tokens_per_s), 2),
            number(Some(self.bytes_per_step as f64 / 1e6), 1),
            share(Some(self.bandwidth_share)),
            share(Some(self.compute_share)),
        ];
        if peer {
            cells.extend([number(self.peer_tokens_per_s, 2), number(self.peer_ratio, 2)]);
        }
        if whole {
            cells.extend([number(self.engine_tokens_per_s, 2), share(self.overhead_share)]);
        }
        cells
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.rows.iter().any(|line| line.peer_ratio.is_some());
        let whole = self.rows.iter().any(|line| line.engine_tokens_per_s.is_some());
        writeln!(out, "model    {}", self.model)?;
        writeln!(out, "threads  {}", self.threads)?;
        let Limits { bandwidth_gb_s, compute_gop_s } = self.limits;
        writeln!(out, "limits   memory {bandwidth_gb_s:.1} GB/s, 8-bit {compute_gop_s:.0} GOP/s\n")?;
        let mut header = vec!["mode", "batch", "prompt", "tok/s", "best", "MB/step", "memory", "8-bit"];
        if peer {
            header.extend(["peer best", "ratio"]);
        }
        if whole {
            header.extend(["engine tok/s", "overhead"]);
        }
        let lines = self.rows.iter().map(|line| line.cells(peer, whole));
        for cells in std::iter::once(header.iter().map(|name| (*name).to_owned()).collect()).chain(lines) {
            for (cell, name) in cells.iter().zip(&header) {
                write!(out, "{cell:>width$}  ", width = name.len().max(8))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
