//! An answer on its way to the client: as one JSON object, or as events.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use engine::{Finished, Text, Token};
use futures::stream;
use http::{HeaderValue, header};
use tokio::time::{Instant, timeout_at};

use crate::{
    backend::{Answer, Part},
    error::ApiError,
    request::OpenRequest,
    wire::{
        generate::{FinalEvent, GenerateAnswer, TextEvent, TokenLogprobBody},
        sse,
        timings::Timings,
    },
};

/// What every shape of an answer needs.
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) text: Text,
    pub(super) request: OpenRequest,
    pub(super) answer: Answer,
}

/// Tokens gathered: the whole answer, or what waits for the next event.
#[derive(Default)]
struct Gathered {
    text: String,
    ids: Vec<u32>,
    logprobs: Option<Vec<TokenLogprobBody>>,
}

impl Gathered {
    fn push(&mut self, token: Token, spelling: &Text) {
        self.text.push_str(&token.text);
        self.ids.push(token.id);
        if let Some(scored) = &token.logprob {
            let body = TokenLogprobBody::new(token.id, scored, |id| spelling.piece(id));
            self.logprobs.get_or_insert_default().push(body);
        }
    }
}

impl Reply {
    /// Waits for the end and answers with one object.
    pub(super) async fn whole(mut self, first: Part) -> Result<Response, ApiError> {
        let mut gathered = Gathered::default();
        let mut part = first;
        let finished = loop {
            match part {
                Part::Token(token) => gathered.push(token, &self.text),
                Part::End(finished) => break finished,
            }
            part = self.answer.next().await?;
        };
        gathered.text.push_str(&finished.text);
        self.object(&gathered, &finished)
    }

    fn object(&self, gathered: &Gathered, finished: &Finished) -> Result<Response, ApiError> {
        let timings = Timings::now(&self.request.ledger());
        let body = serde_json::to_string(&GenerateAnswer {
            id: &self.id,
            model: &self.model,
            text: &gathered.text,
            finish_reason: finished.reason.as_str(),
            usage: finished.usage.into(),
            timings: &timings,
            trace_id: self.request.trace_id(),
            logprobs: gathered.logprobs.as_deref(),
        })?;
        let mut response =
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response();
        if let Ok(value) = HeaderValue::try_from(timings.server_timing()) {
            response.headers_mut().insert("server-timing", value);
        }
        Ok(response)
    }

    /// Answers with events; a comment is sent after `keep_alive` without one.
    pub(super) fn stream(self, first: Part, keep_alive: Duration) -> Response {
        let events = Events { reply: self, first: Some(first), waiting: Gathered::default(), index: 0, keep_alive };
        let frames = stream::unfold(Some(events), async |events| {
            let (frame, rest) = events?.frame().await;
            Some((Ok::<_, std::convert::Infallible>(frame), rest))
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        (headers, Body::from_stream(frames)).into_response()
    }
}

/// A stream of events in the making.
struct Events {
    reply: Reply,
    first: Option<Part>,
    waiting: Gathered,
    index: u32,
    keep_alive: Duration,
}

impl Events {
    /// The next bytes, and what is to come after them.
    async fn frame(mut self) -> (Bytes, Option<Self>) {
        let quiet_until = Instant::now() + self.keep_alive;
        loop {
            let part = match self.first.take() {
                Some(first) => Ok(first),
                None => match timeout_at(quiet_until, self.reply.answer.next()).await {
                    Ok(part) => part,
                    Err(_) => return (sse::KEEP_ALIVE, Some(self)),
                },
            };
            let frame = match part {
                Ok(Part::Token(token)) => {
                    self.waiting.push(token, &self.reply.text);
                    if self.waiting.text.is_empty() {
                        continue;
                    }
                    self.text_event()
                }
                Ok(Part::End(finished)) => {
                    let last = self.last_events(&finished).unwrap_or_else(|error| sse::error(&error));
                    return (last, None);
                }
                Err(error) => Err(error),
            };
            return match frame {
                Ok(event) => (Bytes::from(event), Some(self)),
                Err(error) => (sse::error(&error), None),
            };
        }
    }

    /// What was gathered since the event before.
    fn text_event(&mut self) -> Result<String, ApiError> {
        let waiting = std::mem::take(&mut self.waiting);
        let event = sse::data(&TextEvent {
            index: self.index,
            text: &waiting.text,
            token_ids: &waiting.ids,
            logprobs: waiting.logprobs.as_deref(),
        })?;
        self.index += 1;
        Ok(event)
    }

    /// What was still held back, the final event, and the mark of the end: one write to the socket.
    fn last_events(&mut self, finished: &Finished) -> Result<Bytes, ApiError> {
        self.waiting.text.push_str(&finished.text);
        let mut events = String::new();
        if !(self.waiting.text.is_empty() && self.waiting.ids.is_empty()) {
            events = self.text_event()?;
        }
        let timings = Timings::now(&self.reply.request.ledger());
        events += &sse::data(&FinalEvent {
            id: &self.reply.id,
            model: &self.reply.model,
            finish_reason: finished.reason.as_str(),
            usage: finished.usage.into(),
            timings: &timings,
            trace_id: self.reply.request.trace_id(),
        })?;
        events += sse::DONE;
        Ok(Bytes::from(events))
    }
}
