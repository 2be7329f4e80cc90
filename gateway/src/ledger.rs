//! The phases of one request: consecutive instants whose differences sum to the request's time exactly.
//!
//! A phase is the difference of two neighbouring marks, so no time is lost or counted twice, however the
//! request ends. A request that ends early closes in the phase it was in; later phases are absent, not 0.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use engine::Stamps;

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
    /// Whose request it is, once its key was seen: its place among ours.
    pub caller: Option<usize>,
    /// The id the response carries (`gen-…`).
    pub response_id: Option<String>,
    /// `x-request-id`.
    pub request_id: String,
    /// The served model's name (ours, never the client's spelling).
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: Option<bool>,
    /// What the client asked for.
    pub asked: Asked,
    /// Requests waiting when this one was queued.
    pub queue_depth: Option<usize>,
    /// The HTTP status sent, once chosen.
    pub status: Option<u16>,
    /// `error.type`, from the closed set of error codes in `error.rs`.
    pub error_type: Option<&'static str>,
    /// What was wrong, in words that quote nothing of what the client sent.
    pub error: Option<Cow<'static, str>>,
    /// Bytes of body handed to the socket.
    pub bytes_sent: u64,
    /// Prompt and answer; recorded only when content capture is on.
    pub content: Option<Content>,
}

/// What a client asked for itself, of how it is to be answered; `None` is what it left to us.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Asked {
    /// Events instead of one object.
    pub stream: bool,
    /// The most tokens.
    pub max_tokens: Option<u32>,
    /// As [`engine::Sampling`] has it, and so all below.
    pub temperature: Option<f32>,
    /// Nucleus.
    pub top_p: Option<f32>,
    /// The most likely.
    pub top_k: Option<u32>,
    /// Once per token that occurred.
    pub presence_penalty: Option<f32>,
    /// Per occurrence.
    pub frequency_penalty: Option<f32>,
    /// The seed; a random one otherwise.
    pub seed: Option<u64>,
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
    /// The engine's stamps: end of `queue` and `prefill`, attributions, usage.
    pub stamps: Stamps,
    /// End of `decode`: the last token's instant, once it is known to be the last of a whole answer.
    pub decoded: Option<Instant>,
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
            decoded: None,
            closed: None,
        }
    }

    /// The phases up to `end`, consecutive: the first starts at `started`, the last ends at `end`.
    ///
    /// Marks are clamped to never run backwards, so that no phase is negative. The phase in which the
    /// request ended is the last one; it is present even if nothing happened in it.
    pub fn intervals(&self, end: Instant) -> Vec<Interval> {
        let marks = [self.received, self.tokenized, self.stamps.scheduled, self.stamps.first_token, self.decoded];
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

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    /// A ledger with marks at these nanoseconds after its start, in any order.
    fn ledger(marks: [Option<u64>; 5]) -> Ledger {
        let mut ledger = Ledger::start();
        let [received, tokenized, scheduled, first_token, decoded] =
            marks.map(|mark| mark.map(|nanos| ledger.started + Duration::from_nanos(nanos)));
        ledger.received = received;
        ledger.tokenized = tokenized;
        ledger.stamps = Stamps { scheduled, first_token, ..Stamps::default() };
        ledger.decoded = decoded;
        ledger
    }

    fn mark() -> impl Strategy<Value = Option<u64>> {
        option::weighted(0.8, 0..3_000_000_000_u64)
    }

    proptest! {
        #[test]
        fn phases_are_consecutive_and_sum_to_the_total(
            marks in [mark(), mark(), mark(), mark(), mark()],
            end in 0..4_000_000_000_u64,
        ) {
            let ledger = ledger(marks);
            let end = ledger.started + Duration::from_nanos(end);
            let intervals = ledger.intervals(end);

            prop_assert_eq!(intervals[0].start, ledger.started);
            prop_assert_eq!(intervals.last().map(|last| last.end), Some(end));
            for pair in intervals.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start);
            }
            prop_assert!(intervals.iter().all(|interval| interval.start <= interval.end));
            let sum: Duration = intervals.iter().map(|interval| interval.end - interval.start).sum();
            prop_assert_eq!(sum, end - ledger.started);
            prop_assert!(intervals.iter().map(|interval| interval.phase).eq(Phase::ALL.into_iter().take(intervals.len())));
        }

        #[test]
        fn a_request_closes_in_the_phase_it_was_in(marks in 0..=5_usize) {
            let passed = std::array::from_fn(|i| (i < marks).then_some(10 * (i as u64 + 1)));
            let ledger = ledger(passed);
            let intervals = ledger.intervals(ledger.started + Duration::from_nanos(100));
            prop_assert_eq!(intervals.last().map(|last| last.phase), Some(Phase::ALL[marks]));
        }
    }

    #[test]
    fn a_mean_over_one_token_is_not_defined() {
        let mut ledger = ledger([Some(1), Some(2), Some(3), Some(4), Some(4)]);
        assert_eq!(ledger.time_to_first_token(), Some(Duration::from_nanos(4)));
        ledger.stamps.last_token = ledger.stamps.first_token;
        ledger.stamps.usage.completion_tokens = 1;
        assert_eq!(ledger.time_per_output_token(), None);
        ledger.stamps.last_token = Some(ledger.started + Duration::from_nanos(24));
        ledger.stamps.usage.completion_tokens = 3;
        assert_eq!(ledger.time_per_output_token(), Some(Duration::from_nanos(10)));
    }
}
