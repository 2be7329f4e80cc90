//! Where requests come from: files and servers, recognised by what is in them, joined by trace id.
//!
//! - `format`: which kind of file it is;
//! - `report`, `records`: what `loadgen` wrote;
//! - `otlp`: spans as JSON, from a collector's file or from Jaeger;
//! - `jaeger`: asks Jaeger for them;
//! - `traces`: spans → requests;
//! - `gathering`: all of it → [`Evidence`].
//!
//! Nothing that is read may grow memory without a bound: requests, spans per trace and the length of what is
//! taken in as a whole are limited.

mod format;
mod gathering;
mod jaeger;
mod otlp;
mod records;
mod report;
mod traces;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use url::Url;

use super::Evidence;
use crate::words::{counted, without_secrets};
use format::Format;
use gathering::Gathering;

/// A file that is taken in as a whole may be as long as this.
const FILE_LIMIT: u64 = 1 << 30;

/// What to read, and how much of it.
#[derive(Debug, Clone)]
pub struct Query {
    /// Files, and URLs of Jaeger.
    pub inputs: Vec<String>,
    /// `service.name` of the server.
    pub service: String,
    /// The most requests to take in.
    pub limit: usize,
    /// How far Jaeger is asked to look back, if no other input says when the requests were.
    pub window: Duration,
}

/// One input, and what it gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// As it was named, without secrets.
    pub input: String,
    /// What it is.
    pub kind: &'static str,
    /// What was in it, in words.
    pub content: String,
}

/// Reads every input; an error names the one that cannot be read.
pub async fn gather(query: &Query) -> anyhow::Result<(Evidence, Vec<Source>)> {
    let mut gathering = Gathering::new(query.service.clone(), query.limit);
    let mut sources = Vec::new();
    // Files first: they say which time Jaeger is to be asked for.
    for input in query.inputs.iter().filter(|input| url(input).is_none()) {
        let (kind, content) = read_file(Path::new(input), &mut gathering).with_context(|| without_secrets(input))?;
        sources.push(Source { input: input.clone(), kind, content });
    }
    for input in &query.inputs {
        if let Some(url) = url(input) {
            let content = jaeger::fetch(&url, query, &mut gathering).await.with_context(|| without_secrets(input))?;
            sources.push(Source { input: without_secrets(input), kind: "Jaeger", content });
        }
    }
    Ok((gathering.finish()?, sources))
}

fn url(input: &str) -> Option<Url> {
    Url::parse(input).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

fn read_file(path: &Path, gathering: &mut Gathering) -> anyhow::Result<(&'static str, String)> {
    let open = || File::open(path).map(BufReader::new).context("cannot be opened");
    let kind = Format::of(Limited::new(open()?))?;
    let content = match kind {
        Format::Report => report::read(Limited::new(open()?), gathering),
        Format::Records => records::read(open()?, gathering),
        Format::Traces => otlp::read(Limited::new(open()?), &mut |span| gathering.add_span(span))
            .map(|spans| format!("{} of requests", counted(spans, "span"))),
    }?;
    Ok((kind.name(), content))
}

/// A reader that fails beyond [`FILE_LIMIT`].
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Limited<R> {
    fn new(inner: R) -> Self {
        Self { inner, left: FILE_LIMIT }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other(format!("longer than {FILE_LIMIT} bytes")));
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}
