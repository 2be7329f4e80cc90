//! Another engine, measured by a shell command in turns with ours.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};

use crate::{
    args::Args,
    rows::{Mode, Row},
};

/// Lines of the peer's output that an error shows.
const TAIL: usize = 10;

/// The command and what it is told.
pub(crate) struct Peer {
    command: String,
    environment: [(&'static str, OsString); 5],
}

impl Peer {
    pub(crate) fn new(command: &str, args: &Args) -> Self {
        let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into();
        let environment = [
            ("MODEL", args.model.clone().into_os_string()),
            ("THREADS", args.threads().to_string().into()),
            ("STEPS", args.steps.to_string().into()),
            ("PROMPTS", list(&args.prompt)),
            ("BATCHES", list(&args.batch)),
        ];
        Self { command: command.to_owned(), environment }
    }

    /// Runs it once.
    pub(crate) fn run(&self) -> anyhow::Result<Figures> {
        let output = Command::new("sh")
            .args(["-c", &self.command])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .context("cannot run sh for the peer")?;
        if !output.status.success() {
            bail!("the peer failed ({}): {}\n{}", output.status, self.command, tail(&output.stderr));
        }
        let figures = Figures::parse(&String::from_utf8_lossy(&output.stdout));
        ensure!(!figures.0.is_empty(), "the peer printed no figure: {}\n{}", self.command, tail(&output.stdout));
        Ok(figures)
    }
}

fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// What the peer printed in one run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures(Vec<Figure>);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Figure {
    mode: Mode,
    batch: usize,
    /// `None` where the line names none.
    prompt: Option<usize>,
    tokens_per_s: f64,
}

impl Figures {
    /// Reads lines like `pp512: 157.3 t/s` and `tg B=8 at 128: step 98.1 ms (81.55 tok/s)`; skips all others.
    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Figure::parse).collect())
    }

    /// The figure for `row`: one at its own context, or else one that names no context.
    pub(crate) fn of(&self, row: Row) -> Option<f64> {
        let find = |prompt| {
            let mut same = self.0.iter().filter(|figure| figure.mode == row.mode && figure.batch == row.batch);
            same.find(|figure| figure.prompt == prompt)
        };
        find(Some(row.prompt)).or_else(|| find(None)).map(|figure| figure.tokens_per_s)
    }
}

impl Figure {
    fn parse(line: &str) -> Option<Self> {
        let (head, rest) = line.trim().split_once(':')?;
        if let Some(prompt) = head.strip_prefix("pp") {
            let prompt = Some(prompt.parse().ok()?);
            return Some(Self { mode: Mode::Prefill, batch: 1, prompt, tokens_per_s: before(rest, " t/s")? });
        }
        let row = head.strip_prefix("tg B=")?;
        let (batch, prompt) = match row.split_once(" at ") {
            Some((batch, prompt)) => (batch, Some(prompt.parse().ok()?)),
            None => (row, None),
        };
        let batch = batch.parse().ok()?;
        Some(Self { mode: Mode::Decode, batch, prompt, tokens_per_s: before(rest, " tok/s)")? })
    }
}

/// The number right before the first `unit`.
fn before(text: &str, unit: &str) -> Option<f64> {
    let (head, _) = text.split_once(unit)?;
    let number: f64 = head.rsplit([' ', '(']).next()?.parse().ok()?;
    (number.is_finite() && number > 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_others_skipped() {
        let figures = Figures::parse(
            "loading\npp128: 160.2 t/s wall, 80.1 t per cpu-s\ntg B=1: step 26.1 ms wall (38.31 tok/s), 52.0 cpu-ms \
             (19.2 tok per cpu-s)\ntg B=8 at 512: step 100.0 ms best (80.00 tok/s), 101.0 ms median (79.21 tok/s)\n\
             tg B=25: step 0 ms (inf tok/s)\npp: 3 t/s\n",
        );
        let of = |mode, batch, prompt| figures.of(Row { mode, batch, prompt });
        assert_eq!(of(Mode::Prefill, 1, 128), Some(160.2));
        assert_eq!(of(Mode::Prefill, 1, 512), None);
        assert_eq!(of(Mode::Decode, 1, 128), Some(38.31));
        assert_eq!(of(Mode::Decode, 1, 512), Some(38.31));
        assert_eq!(of(Mode::Decode, 8, 512), Some(80.0));
        assert_eq!(of(Mode::Decode, 8, 128), None);
        assert_eq!(of(Mode::Decode, 25, 128), None);
    }
}
