//! The phases of one request: consecutive instants whose differences sum to the request's time exactly.
//!
//! A phase is the difference of two neighbouring marks, so no time is lost or counted twice, however the
//! request ends. A request that ends early closes in the phase it was in; later phases are absent, not 0.

use std::time::{Duration, Instant, SystemTime};

use engine::{Sampling, Stamps};

/// A phase, in the order a request goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Request head read to body read, authenticated, validated.
    Receive,
    /// To the prompt rendered and encoded.
    Tokenize,
    /// To the first engine step the request is part of.
    Queue,
    /// To the first token sampled.
    Prefill,
    /// To the last token sampled.
    Decode,
    /// To the last byte handed to the socket, or the client gone.
    Deliver,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 6] = [Self::Receive, Self::Tokenize, Self::Queue, Self::Prefill, Self::Decode, Self::Deliver];

    /// The name in spans, labels and JSON (there with `_ms`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Tokenize => "tokenize",
            Self::Queue => "queue",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Deliver => "deliver",
        }
    }
}

/// How a request ended; a closed set, safe as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The answer is whole: end-of-sequence or stop string.
    Stop,
    /// The answer is whole: `max_tokens` or the context's end.
    Length,
    /// The client left.
    Cancelled,
    /// The deadline passed.
    Deadline,
    /// Refused: the request is at fault (4xx).
    Invalid,
    /// Refused: too much to do (429, 503).
    Overloaded,
    /// The engine or the gateway failed (5xx).
    Error,
}

impl Outcome {
    /// The `reason` label of `gateway.requests.finished`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::Invalid => "invalid",
            Self::Overloaded => "overloaded",
            Self::Error => "error",
        }
    }
}

/// What is known of a request besides its times; filled in as it becomes known.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The id the response carries (`gen-…`).
    pub response_id: Option<String>,
    /// `x-request-id`.
    pub request_id: String,
    /// The served model's name (ours, never the client's spelling).
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: Option<bool>,
    /// `max_tokens` as used.
    pub max_tokens: Option<u32>,
    /// Sampling as used.
    pub sampling: Option<Sampling>,
    /// Requests waiting when this one was queued.
    pub queue_depth: Option<usize>,
    /// The HTTP status sent, once chosen.
    pub status: Option<u16>,
    /// `error.type`, from the closed set of error codes in `error.rs`.
    pub error_type: Option<&'static str>,
    /// Bytes of body handed to the socket.
    pub bytes_sent: u64,
    /// Prompt and answer; recorded only when content capture is on.
    pub content: Option<Content>,
}

/// What was asked and answered, for opt-in capture only.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The prompt as the client sent it.
    pub prompt: String,
    /// The answer's text so far.
    pub answer: String,
}

/// A request's times, from the head read until now or until it closed.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// When the head was read.
    pub started: Instant,
    /// The same moment on the wall clock: the one anchor for span times.
    pub started_wall: SystemTime,
    /// End of `receive`.
    pub received: Option<Instant>,
    /// End of `tokenize`.
    pub tokenized: Option<Instant>,
    /// The engine's stamps: end of `queue`, `prefill` and `decode`, attributions, usage.
    pub stamps: Stamps,
    /// The end.
    pub closed: Option<Instant>,
}

/// One phase as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Which.
    pub phase: Phase,
    /// Its first instant.
    pub start: Instant,
    /// Its last, and the next phase's first.
    pub end: Instant,
}

impl Ledger {
    /// A ledger that starts now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            started_wall: SystemTime::now(),
            received: None,
            tokenized: None,
            stamps: Stamps::default(),
            closed: None,
        }
    }

    /// The phases up to `end`, consecutive: the first starts at `started`, the last ends at `end`.
    ///
    /// Marks are clamped to never run backwards, so that no phase is negative. The phase in which the
    /// request ended is the last one; it is present even if nothing happened in it.
    pub fn intervals(&self, end: Instant) -> Vec<Interval> {
        let marks =
            [self.received, self.tokenized, self.stamps.scheduled, self.stamps.first_token, self.stamps.last_token];
        let mut intervals = Vec::with_capacity(Phase::ALL.len());
        let mut start = self.started;
        for (phase, mark) in Phase::ALL.into_iter().zip(marks.into_iter().chain([None])) {
            let until = mark.unwrap_or(end).clamp(start, end.max(start));
            intervals.push(Interval { phase, start, end: until });
            start = until;
            if mark.is_none() {
                break;
            }
        }
        intervals
    }

    /// Time to first token: from `started` to the first token sampled.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        Some(self.stamps.first_token?.saturating_duration_since(self.started))
    }

    /// Time per output token after the first; only with more than one.
    pub fn time_per_output_token(&self) -> Option<Duration> {
        let tokens = self.stamps.usage.completion_tokens;
        let span = self.stamps.last_token?.checked_duration_since(self.stamps.first_token?)?;
        (tokens > 1).then(|| span / (tokens - 1))
    }

    /// The wall-clock time of an instant of this request.
    pub fn wall(&self, instant: Instant) -> SystemTime {
        self.started_wall + instant.saturating_duration_since(self.started)
    }
}
