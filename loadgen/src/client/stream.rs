//! `stream_once`: sends one request, reads its event stream as it arrives, stamps every step.
//!
//! Never fails: whatever happens is in the record. Only events with text count as progress and as content:
//! neither an empty first event nor keep-alive comments do.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, ACCEPT_ENCODING};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::task::consume_budget;
use tokio::time::timeout_at;
use uuid::Uuid;

use super::failure::{not_a_stream, redirect, transport};
use super::sse::{Event, Parser};
use super::{GenerateRequest, Target, claims};
use crate::record::{Chunk, Epoch, ErrorClass, Failure, RequestRecord};
use crate::words::plain;

/// The most of a refusal's body that is read.
const ERROR_BODY_LIMIT: usize = 64 << 10;

/// The most of an answer that is read: tokens by the hundred thousand.
const ANSWER_LIMIT: usize = 64 << 20;

/// Events with text that are kept: so many per token that was asked for, and some.
const EVENTS_PER_TOKEN: usize = 8;
const EVENTS: usize = 1024;

/// Characters of a server's word that are kept.
const WORD: usize = 64;

/// How long the rest of a finished answer may take, so that its connection can be used again.
const LINGER: Duration = Duration::from_secs(1);

/// Which request is due, and since when.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The user that sends it.
    pub user: usize,
    /// The corpus line of its prompt.
    pub prompt: usize,
    /// When the user was ready for it.
    pub scheduled: Instant,
}

/// Sends `body` to `POST /generate` and follows the stream to its end, or until `stop` says to cut it, and as what.
pub async fn stream_once(
    target: &Target,
    epoch: Epoch,
    due: Due,
    body: &GenerateRequest<'_>,
    stop: impl Future<Output = ErrorClass>,
) -> RequestRecord {
    let trace_id = Uuid::new_v4().simple().to_string();
    let span_id = Uuid::new_v4().simple().to_string().split_off(16);
    let traceparent = format!("00-{trace_id}-{span_id}-01");
    let request = target
        .client
        .post(target.url("/generate"))
        .header("traceparent", traceparent)
        .header(ACCEPT, "text/event-stream")
        .header(ACCEPT_ENCODING, "identity")
        .json(body);
    let sent = Instant::now();
    let record = RequestRecord {
        user: due.user,
        prompt: due.prompt,
        max_tokens: body.max_tokens,
        trace_id,
        span_id,
        scheduled_us: epoch.micros(due.scheduled),
        sent_us: epoch.micros(sent),
        headers_us: None,
        end_us: 0,
        status: None,
        chunks: Vec::with_capacity(body.max_tokens.min(1024) as usize),
        usage: None,
        finish_reason: None,
        server_trace_id: None,
        timings: None,
        implausible: None,
        error: None,
    };
    let most_events = EVENTS + (body.max_tokens as usize).saturating_mul(EVENTS_PER_TOKEN);
    let deadline = sent + target.timeout;
    let mut reader = Reader { record, prompt: body.prompt, most_events, epoch, target, deadline, pending: 0 };
    let outcome = tokio::select! {
        outcome = reader.run(request) => outcome,
        class = stop => Err(Failure::new(class, "cut by the load generator when the run was over")),
    };
    let mut record = reader.record;
    record.error = outcome.err();
    // A stream read to its end is stamped there; any other way ends now.
    if record.end_us == 0 {
        record.end_us = epoch.now();
    }
    record
}

struct Reader<'a> {
    record: RequestRecord,
    prompt: &'a str,
    /// Events with text that are kept.
    most_events: usize,
    epoch: Epoch,
    target: &'a Target,
    /// When the request is given up, unless text arrives before.
    deadline: Instant,
    /// Tokens of events without text, which belong to the next event with text.
    pending: u32,
}

impl Reader<'_> {
    async fn run(&mut self, request: RequestBuilder) -> Result<(), Failure> {
        match timeout_at(self.deadline.into(), request.send()).await {
            Err(_) => Err(self.stalled()),
            Ok(Err(error)) => Err(transport(error)),
            Ok(Ok(response)) => self.read(response).await,
        }
    }

    async fn read(&mut self, mut response: Response) -> Result<(), Failure> {
        self.record.headers_us = Some(self.epoch.now());
        self.record.status = Some(response.status().as_u16());
        if response.status().is_redirection() {
            return Err(redirect(&response));
        }
        if response.status() != StatusCode::OK {
            return Err(refusal(response, self.deadline).await);
        }
        if let Some(failure) = not_a_stream(&response) {
            return Err(failure);
        }
        let mut left = ANSWER_LIMIT;
        let mut parser = Parser::new();
        let mut events = Vec::new();
        loop {
            let bytes = match timeout_at(self.deadline.into(), response.chunk()).await {
                Err(_) => return Err(self.stalled()),
                Ok(Err(error)) => return Err(transport(error)),
                Ok(Ok(None)) => return self.closed(),
                Ok(Ok(Some(bytes))) => bytes,
            };
            let at = Instant::now();
            // A stream that never pauses must leave others, and its own end, a turn.
            consume_budget().await;
            left = left.checked_sub(bytes.len()).ok_or_else(|| {
                Failure::new(ErrorClass::TooLarge, format!("the answer is larger than {ANSWER_LIMIT} bytes"))
            })?;
            parser.push(&bytes, &mut events).map_err(|error| Failure::new(ErrorClass::TooLarge, error))?;
            for event in events.drain(..) {
                if self.take(&event, at)? {
                    self.record.end_us = self.epoch.micros(at);
                    linger(response).await;
                    return Ok(());
                }
            }
        }
    }

    /// Takes one event; true when it was the last.
    fn take(&mut self, event: &Event, at: Instant) -> Result<bool, Failure> {
        if event.name == "error" {
            return Err(Failure::new(ErrorClass::InStream, error_message(event.data.as_bytes())));
        }
        if event.data == "[DONE]" {
            return Ok(true);
        }
        let part: Part = serde_json::from_str(&event.data).map_err(|error| {
            Failure::new(ErrorClass::MalformedEvent, format!("a streamed event is not the expected JSON: {error}"))
        })?;
        let tokens = part.token_ids.map(|ids| u32::try_from(ids.len()).unwrap_or(u32::MAX));
        if part.text.is_empty() {
            self.pending = self.pending.saturating_add(tokens.unwrap_or(0));
        } else {
            let tokens = tokens.map_or(1, |tokens| tokens.saturating_add(std::mem::take(&mut self.pending)));
            let characters = u32::try_from(part.text.chars().count()).unwrap_or(u32::MAX);
            if self.record.chunks.len() >= self.most_events {
                let message = format!("more than {} events with text", self.most_events);
                return Err(Failure::new(ErrorClass::TooLarge, message));
            }
            self.record.chunks.push(Chunk { at_us: self.epoch.micros(at), characters, tokens });
            self.deadline = at + self.target.timeout;
            self.target.received.fetch_add(u64::from(tokens), Ordering::Relaxed);
        }
        if let Some(reason) = part.finish_reason {
            self.record.finish_reason = Some(plain(&reason, WORD));
        }
        if let Some(trace_id) = part.trace_id.filter(|id| id.len() <= WORD && id.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            self.record.server_trace_id = Some(trace_id);
        }
        if let Some(value) = part.usage {
            self.record.usage = self.believe(claims::usage(&value, self.prompt, self.record.max_tokens));
        }
        if let Some(value) = part.timings {
            let latency = Duration::from_micros(self.epoch.micros(at).saturating_sub(self.record.sent_us));
            self.record.timings = self.believe(claims::timings(&value, latency));
        }
        Ok(false)
    }

    /// What can be; what cannot is named in the record.
    fn believe<T>(&mut self, claim: Result<T, String>) -> Option<T> {
        claim.map_err(|why| self.record.implausible.get_or_insert_with(|| plain(&why, WORD)).clone()).ok()
    }

    /// The stream is at its end without `[DONE]`.
    fn closed(&mut self) -> Result<(), Failure> {
        self.record.end_us = self.epoch.now();
        if self.record.finish_reason.is_some() {
            return Ok(());
        }
        Err(Failure::new(ErrorClass::Truncated, "the stream ended without a finish reason and without [DONE]"))
    }

    fn stalled(&self) -> Failure {
        let seconds = self.target.timeout.as_secs_f64();
        if self.record.chunks.is_empty() {
            Failure::new(ErrorClass::FirstTokenTimeout, format!("no text within {seconds} s"))
        } else {
            Failure::new(ErrorClass::IdleTimeout, format!("no more text for {seconds} s"))
        }
    }
}

/// One event's JSON; what is not named here is of no interest.
#[derive(Debug, Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
    /// How many is all that counts.
    token_ids: Option<Vec<IgnoredAny>>,
    finish_reason: Option<String>,
    usage: Option<Value>,
    timings: Option<Value>,
    trace_id: Option<String>,
}

/// Reads an answered request's body to its end, so that its connection is kept.
async fn linger(mut response: Response) {
    let rest = async {
        let mut left = ERROR_BODY_LIMIT;
        while let Ok(Some(bytes)) = response.chunk().await {
            match left.checked_sub(bytes.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Without an end in time only the connection is lost.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

async fn refusal(mut response: Response, deadline: Instant) -> Failure {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Ok(Some(bytes))) = timeout_at(deadline.into(), response.chunk()).await {
        if body.len() + bytes.len() > ERROR_BODY_LIMIT {
            break;
        }
        body.extend_from_slice(&bytes);
    }
    let message = if body.is_empty() { status.to_string() } else { error_message(&body) };
    Failure::new(ErrorClass::Http(status.as_u16()), message)
}

/// The message of an error object, or the body itself where it is none.
fn error_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Outer {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: String,
    }
    match serde_json::from_slice::<Outer>(body).or_else(|_| serde_json::from_slice(body).map(|error| Outer { error })) {
        Ok(object) => object.error.message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}
