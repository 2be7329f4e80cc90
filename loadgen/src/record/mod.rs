//! One request as the client saw it: the one thing measured, and the only source of every figure printed.
//!
//! All times are microseconds since the run's epoch. A time that was not reached is absent, never 0. Times
//! are stamped when bytes arrive, before they are parsed.

mod failure;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

pub use failure::{ErrorClass, Failure};

/// The zero of a run's times, on the steady clock that measures and on the wall clock that others read.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    instant: Instant,
    wall: SystemTime,
}

impl Epoch {
    /// An epoch that begins now.
    pub fn start() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// Microseconds from the epoch until `instant` (0 if it lies before).
    pub fn micros(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.instant).as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds from the epoch until now.
    pub fn now(&self) -> u64 {
        self.micros(Instant::now())
    }

    /// The wall-clock time of `micros` after the epoch.
    pub fn wall(&self, micros: u64) -> SystemTime {
        self.wall.checked_add(Duration::from_micros(micros)).unwrap_or(self.wall)
    }
}

/// One streamed event that carried text; in JSON the array `[at_us, characters, tokens]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u32)", into = "(u64, u32, u32)")]
pub struct Chunk {
    /// When its bytes were read.
    pub at_us: u64,
    /// Length of its text in characters.
    pub characters: u32,
    /// Tokens it carried, as the server says; 1 where it does not say.
    pub tokens: u32,
}

impl From<(u64, u32, u32)> for Chunk {
    fn from((at_us, characters, tokens): (u64, u32, u32)) -> Self {
        Self { at_us, characters, tokens }
    }
}

impl From<Chunk> for (u64, u32, u32) {
    fn from(chunk: Chunk) -> Self {
        (chunk.at_us, chunk.characters, chunk.tokens)
    }
}

/// Token counts as the server reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Prompt tokens found in the server's prefix cache.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// The server's own account of the request, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Head read to answer rendered.
    pub total_ms: f64,
    /// Head read to first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Per token after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot_ms: Option<f64>,
    /// Phase name with `_ms` → milliseconds.
    #[serde(default)]
    pub phases: BTreeMap<String, f64>,
    /// Within its phases: paused because the client reads slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<f64>,
    /// Within its phases: evicted, and computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted_ms: Option<f64>,
    /// Within its phases: spent on other requests' prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interference_ms: Option<f64>,
}

/// A phase of the server's ledger, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the request.
    Receive,
    /// Rendering and encoding the prompt.
    Tokenize,
    /// Waiting for the first step.
    Queue,
    /// To the first token.
    Prefill,
    /// To the last token.
    Decode,
    /// To the last byte.
    Deliver,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 6] = [Self::Receive, Self::Tokenize, Self::Queue, Self::Prefill, Self::Decode, Self::Deliver];

    /// Its name in spans, and in JSON before `_ms`.
    pub fn name(self) -> &'static str {
        ["receive", "tokenize", "queue", "prefill", "decode", "deliver"][self as usize]
    }

    /// The one called so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// Everything kept of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The user that sent it, from 0.
    pub user: usize,
    /// The corpus line its prompt came from, from 0.
    pub prompt: usize,
    /// `max_tokens` as sent.
    pub max_tokens: u32,
    /// The trace id sent in `traceparent`.
    pub trace_id: String,
    /// The span id sent in `traceparent`: the parent of the server's span.
    #[serde(default)]
    pub span_id: String,
    /// When it was due: the moment its user was ready for it.
    pub scheduled_us: u64,
    /// When it was handed to the HTTP client.
    pub sent_us: u64,
    /// When the response head arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_us: Option<u64>,
    /// When the request was over, however it ended.
    pub end_us: u64,
    /// The response's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Every event with text, in order.
    #[serde(default)]
    pub chunks: Vec<Chunk>,
    /// The server's token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Why the answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The trace id the server put into its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_trace_id: Option<String>,
    /// The server's ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// What the server said of the request and cannot be; it is in no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implausible: Option<String>,
    /// Set if and only if the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl RequestRecord {
    /// Whether the answer came whole.
    pub fn succeeded(&self) -> bool {
        self.error.is_none()
    }

    /// When the first text arrived.
    pub fn first_content_us(&self) -> Option<u64> {
        self.chunks.first().map(|chunk| chunk.at_us)
    }

    /// Time to first token: sending until the first event with text.
    pub fn ttft(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.first_content_us()?.saturating_sub(self.sent_us)))
    }

    /// Sending until the end of the answer.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.end_us.saturating_sub(self.sent_us))
    }

    /// How long the request waited on this side before it was sent.
    pub fn send_delay(&self) -> Duration {
        Duration::from_micros(self.sent_us.saturating_sub(self.scheduled_us))
    }

    /// Time per output token after the first, `(last text − first text) / (n − 1)`; only with more than one.
    pub fn tpot(&self) -> Option<Duration> {
        let (first, last) = (self.chunks.first()?, self.chunks.last()?);
        let steps = self.output_tokens().checked_sub(1).filter(|steps| *steps > 0)?;
        Some(Duration::from_secs_f64(last.at_us.saturating_sub(first.at_us) as f64 / 1e6 / steps as f64))
    }

    /// The times between neighbouring events with text.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.chunks.windows(2).map(|pair| Duration::from_micros(pair[1].at_us.saturating_sub(pair[0].at_us)))
    }

    /// Tokens of the answer: the server's count, or else the sum over its events.
    pub fn output_tokens(&self) -> u64 {
        match self.usage {
            Some(usage) => usage.completion_tokens,
            None => self.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum(),
        }
    }
}

/// What the analysis needs of one request: a [`RequestRecord`] without its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The user that sent it, from 0.
    pub user: usize,
    /// Its trace.
    pub trace_id: String,
    /// When it was due.
    pub scheduled_us: u64,
    /// When it was handed to the HTTP client.
    pub sent_us: u64,
    /// When the response head arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_us: Option<u64>,
    /// When the first text arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_us: Option<u64>,
    /// When the last text arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_us: Option<u64>,
    /// When the request was over.
    pub end_us: u64,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Prompt tokens found in the server's prefix cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// What the server said of the request and cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implausible: Option<String>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorClass>,
    /// The server's ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

impl From<&RequestRecord> for Row {
    fn from(record: &RequestRecord) -> Self {
        Self {
            user: record.user,
            trace_id: record.trace_id.clone(),
            scheduled_us: record.scheduled_us,
            sent_us: record.sent_us,
            headers_us: record.headers_us,
            first_us: record.first_content_us(),
            last_us: record.chunks.last().map(|chunk| chunk.at_us),
            end_us: record.end_us,
            prompt_tokens: record.usage.map(|usage| usage.prompt_tokens),
            output_tokens: record.output_tokens(),
            cached_tokens: record.usage.map(|usage| usage.cached_tokens),
            implausible: record.implausible.clone(),
            error: record.error.as_ref().map(|failure| failure.class),
            timings: record.timings.clone(),
        }
    }
}
