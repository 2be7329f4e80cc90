//! The report as a table, without the columns that are empty in all lines.

use std::fmt;

use super::{Compute, Limits, Line, Report};

/// Groups of columns that not every report has.
#[derive(Debug, Clone, Copy)]
struct Columns {
    gpu: bool,
    peer: bool,
    whole: bool,
}

impl Columns {
    fn of(report: &Report) -> Self {
        Self {
            gpu: report.rows.iter().any(|line| line.gpu.is_some()),
            peer: report.rows.iter().any(|line| line.peer_ratio.is_some()),
            whole: report.rows.iter().any(|line| line.engine_tokens_per_s.is_some()),
        }
    }

    fn header(self, operands: &'static str) -> Vec<&'static str> {
        let mut header = vec!["mode", "batch", "prompt", "tok/s", "best", "MB/step", "memory", operands];
        if self.gpu {
            header.extend(["floor tok/s", "of floor", "host"]);
        }
        if self.peer {
            header.extend(["peer best", "ratio"]);
        }
        if self.whole {
            header.extend(["engine tok/s", "overhead"]);
        }
        header
    }

    fn cells(self, line: &Line) -> Vec<String> {
        let mut cells = vec![
            format!("{:?}", line.row.mode).to_lowercase(),
            line.row.batch.to_string(),
            line.row.prompt.to_string(),
            number(Some(line.tokens_per_s), 2),
            number(Some(line.best_tokens_per_s), 2),
            number(Some(line.bytes_per_step as f64 / 1e6), 1),
            share(Some(line.bandwidth_share)),
            share(line.compute_share),
        ];
        if self.gpu {
            let gpu = line.gpu.as_ref();
            cells.extend([
                number(gpu.map(|gpu| gpu.floor_tokens_per_s), 2),
                share(gpu.map(|gpu| gpu.floor_share)),
                share(gpu.map(|gpu| gpu.host_overhead_share)),
            ]);
        }
        if self.peer {
            cells.extend([number(line.peer_tokens_per_s, 2), number(line.peer_ratio, 2)]);
        }
        if self.whole {
            cells.extend([number(line.engine_tokens_per_s, 2), share(line.overhead_share)]);
        }
        cells
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}%", value * 100.0))
}

impl Limits {
    /// What is multiplied where operations are counted.
    fn operands(&self) -> &'static str {
        match self.compute {
            Some(Compute::Gpu { compute_of, .. }) => compute_of,
            Some(Compute::Cpu { .. }) => "8-bit",
            None => "compute",
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "memory {:.1} GB/s", self.bandwidth_gb_s)?;
        match self.compute {
            Some(Compute::Cpu { compute_gop_s }) => write!(out, ", 8-bit {compute_gop_s:.0} GOP/s"),
            Some(Compute::Gpu { compute_tflop_s, compute_of }) => {
                write!(out, ", {compute_of} {compute_tflop_s:.1} TFLOP/s")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "model    {}", self.model)?;
        if let Some(device) = &self.device {
            writeln!(out, "device   {device}")?;
        }
        if let Some(threads) = self.threads {
            writeln!(out, "threads  {threads}")?;
        }
        writeln!(out, "limits   {}\n", self.limits)?;
        let columns = Columns::of(self);
        let header = columns.header(self.limits.operands());
        let lines = self.rows.iter().map(|line| columns.cells(line));
        for cells in std::iter::once(header.iter().map(|name| (*name).to_owned()).collect()).chain(lines) {
            for (cell, name) in cells.iter().zip(&header) {
                write!(out, "{cell:>width$}  ", width = name.len().max(8))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
