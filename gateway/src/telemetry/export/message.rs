//! An `ExportTraceServiceRequest` around spans that are encoded already.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use opentelemetry_sdk::Resource;

use super::super::{encode::write_attribute, protobuf::Message};

/// The scope of all spans.
const SCOPE: &str = "gateway";

/// What stands before the spans in every message: who is telling.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Envelope {
    /// `ResourceSpans.resource`.
    resource: Vec<u8>,
    /// `ScopeSpans.scope`.
    scope: Vec<u8>,
}

/// What is sent: the beginning, then the spans, none of it copied. A body of HTTP.
#[derive(Debug, Clone, Default)]
pub(in crate::telemetry) struct ExportMessage {
    parts: VecDeque<Bytes>,
}

impl Envelope {
    /// The same for all messages.
    pub(in crate::telemetry) fn new(resource: &Resource) -> Self {
        let mut message = Message::default();
        message.message(1, |written| {
            for (key, value) in resource.iter() {
                write_attribute(written, 1, key.as_str(), value);
            }
        });
        let mut scope = Message::default();
        scope.message(1, |scope| {
            scope.text(1, SCOPE);
            scope.text(2, env!("CARGO_PKG_VERSION"));
        });
        Self { resource: message.into_bytes(), scope: scope.into_bytes() }
    }

    /// A message with `spans`, each part a whole number of `ScopeSpans.spans`.
    pub(in crate::telemetry) fn enclose(&self, spans: &[Bytes]) -> ExportMessage {
        let in_scope = self.scope.len() + spans.iter().map(Bytes::len).sum::<usize>();
        let mut scope = Message::default();
        scope.head(2, in_scope);
        let scope = scope.into_bytes();
        let mut message = Message::default();
        message.head(1, self.resource.len() + scope.len() + in_scope);
        let beginning = [message.into_bytes().as_slice(), &self.resource, &scope, &self.scope].concat();
        ExportMessage { parts: std::iter::once(beginning.into()).chain(spans.iter().cloned()).collect() }
    }
}

impl ExportMessage {
    /// Its bytes.
    pub(in crate::telemetry) fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// The same as gRPC frames it: not compressed, and with its length.
    pub(super) fn framed(mut self) -> Self {
        // A batch is a few megabytes.
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_be_bytes();
        self.parts.push_front(Bytes::copy_from_slice(&[0, a, b, c, d]));
        self
    }
}

impl Body for ExportMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}
