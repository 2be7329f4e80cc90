//! How far a download is: a bar on a terminal, else a line now and then.

use std::fmt;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines that one file gets where there is no terminal.
const LINES: u64 = 10;

/// Bytes as a reader likes them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(formatter, "{} B", self.0),
            1_000..1_000_000 => write!(formatter, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(formatter, "{:.1} MB", bytes / 1e6),
            _ => write!(formatter, "{:.2} GB", bytes / 1e9),
        }
    }
}

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// On standard error.
    Shown,
    /// Nowhere.
    Silent,
}

impl Progress {
    /// Says something once.
    pub(super) fn say(self, message: fmt::Arguments<'_>) {
        if self == Self::Shown {
            eprintln!("{message}");
        }
    }

    /// Begins a file of that many bytes.
    pub(super) fn file(self, name: &str, size: u64) -> FileProgress {
        let target = match self {
            Self::Shown => ProgressDrawTarget::stderr(),
            Self::Silent => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(size), target).with_message(name.to_owned());
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let lines = self == Self::Shown && bar.is_hidden();
        FileProgress { name: name.to_owned(), size, lines, said: 0, bar }
    }
}

/// How far one file is.
#[derive(Debug)]
pub(super) struct FileProgress {
    name: String,
    size: u64,
    /// Whether lines stand in for the bar.
    lines: bool,
    /// Lines' worth of bytes already told.
    said: u64,
    bar: ProgressBar,
}

impl FileProgress {
    /// The file has that many bytes now.
    pub(super) fn at(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        let worth = (u128::from(bytes) * u128::from(LINES)).checked_div(self.size.into()).unwrap_or(0) as u64;
        if self.lines && worth > self.said {
            self.said = worth;
            eprintln!("{}: {} of {}", self.name, Bytes(bytes), Bytes(self.size));
        }
    }

    /// Something to know about, between two states of the bar.
    pub(super) fn note(&self, message: fmt::Arguments<'_>) {
        if self.lines {
            eprintln!("{}: {message}", self.name);
        } else {
            self.bar.println(format!("{}: {message}", self.name));
        }
    }
}

impl Drop for FileProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
