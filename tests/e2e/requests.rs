//! How the tests ask.

use futures::StreamExt;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

/// A trace id and the `traceparent` of a caller that has it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) trace_id: String,
    pub(crate) span_id: &'static str,
    pub(crate) sampled: bool,
}

impl Caller {
    /// Trace ids differ by `number`.
    pub(crate) fn new(number: u64) -> Self {
        Self { trace_id: format!("{:032x}", 0xfeed_0000 + number), span_id: "00f067aa0ba902b7", sampled: true }
    }

    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }

    pub(crate) fn asks(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("traceparent", self.traceparent())
    }
}

/// An answer of `tokens` tokens.
pub(crate) fn body(tokens: u32) -> Value {
    json!({"prompt": "Why is the sky blue?", "max_tokens": tokens, "ignore_eos": true, "raw": true, "seed": 1})
}

/// The same, streamed.
pub(crate) fn streamed(tokens: u32) -> Value {
    let mut body = body(tokens);
    body["stream"] = true.into();
    body
}

/// Reads the first bytes of a stream and keeps it open.
pub(crate) async fn first_bytes(
    response: Response,
) -> anyhow::Result<impl futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin> {
    anyhow::ensure!(response.status() == 200, "{}", response.text().await?);
    let mut stream = Box::pin(response.bytes_stream());
    anyhow::ensure!(stream.next().await.is_some(), "the stream ended at once");
    Ok(stream)
}

/// The last JSON event of a whole stream.
pub(crate) fn last_event(text: &str) -> Option<Value> {
    let mut events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    events.rfind(|event| *event != "[DONE]").and_then(|event| serde_json::from_str(event).ok())
}
