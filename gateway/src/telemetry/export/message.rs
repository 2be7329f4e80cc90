//! An `ExportTraceServiceRequest` around spans that are encoded already.

use std::{
    borrow::Cow,
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use opentelemetry::Value;
use opentelemetry_sdk::Resource;

use super::super::{
    encode::{Origin, write_attribute},
    protobuf::Message,
};

/// The attribute by which traces are looked for.
const SERVICE_NAME: &str = "service.name";

/// Field numbers: `ExportTraceServiceRequest.resource_spans`, and `ResourceSpans.scope_spans`.
const RESOURCE_SPANS: u32 = 1;
const SCOPE_SPANS: u32 = 2;

/// What stands before the spans in every message: who is telling, by origin.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Envelope {
    heads: [Head; Origin::ALL.len()],
}

/// Of the spans of one origin.
#[derive(Debug, Clone)]
struct Head {
    /// `ResourceSpans.resource`.
    resource: Vec<u8>,
    /// `ScopeSpans.scope`.
    scope: Vec<u8>,
}

/// A whole number of `ScopeSpans.spans`, all of one origin.
pub(in crate::telemetry) type Spans = (Origin, Bytes);

/// What is sent: the beginning, then the spans, none of it copied. A body of HTTP.
#[derive(Debug, Clone, Default)]
pub(in crate::telemetry) struct ExportMessage {
    parts: VecDeque<Bytes>,
}

impl Envelope {
    /// The same for all messages; an engine's steps are the service of `resource` by another name.
    pub(in crate::telemetry) fn new(resource: &Resource) -> Self {
        Self { heads: Origin::ALL.map(|origin| Head::new(resource, origin)) }
    }

    /// A message with `spans`, none of them copied.
    pub(in crate::telemetry) fn enclose(&self, spans: &[Spans]) -> ExportMessage {
        let mut parts = VecDeque::with_capacity(spans.len() + 2);
        for (head, origin) in self.heads.iter().zip(Origin::ALL) {
            let of_origin = || spans.iter().filter(|(of, _)| *of == origin).map(|(_, bytes)| bytes);
            if of_origin().next().is_some() {
                parts.push_back(head.before(of_origin().map(Bytes::len).sum()));
                parts.extend(of_origin().cloned());
            }
        }
        ExportMessage { parts }
    }
}

impl Head {
    fn new(resource: &Resource, origin: Origin) -> Self {
        let mut message = Message::default();
        message.message(1, |written| {
            for (key, value) in resource.iter() {
                match key.as_str() {
                    SERVICE_NAME => write_attribute(written, 1, SERVICE_NAME, service(value, origin).as_ref()),
                    key => write_attribute(written, 1, key, value),
                }
            }
        });
        let mut scope = Message::default();
        scope.message(1, |scope| {
            scope.text(1, origin.scope());
            scope.text(2, env!("CARGO_PKG_VERSION"));
        });
        Self { resource: message.into_bytes(), scope: scope.into_bytes() }
    }

    /// What comes before so many bytes of spans.
    fn before(&self, spans: usize) -> Bytes {
        let in_scope = self.scope.len() + spans;
        let mut scope = Message::default();
        scope.head(SCOPE_SPANS, in_scope);
        let scope = scope.into_bytes();
        let mut message = Message::default();
        message.head(RESOURCE_SPANS, self.resource.len() + scope.len() + in_scope);
        [message.into_bytes().as_slice(), &self.resource, &scope, &self.scope].concat().into()
    }
}

/// The service that spans are of: `llm-inference-engine` beside `llm-inference-api`, `x-engine` beside `x`.
fn service(name: &Value, origin: Origin) -> Cow<'_, str> {
    let name = name.as_str();
    match origin {
        Origin::Gateway => name,
        Origin::Engine => format!("{}-engine", name.strip_suffix("-api").unwrap_or(&name)).into(),
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;

    use super::*;

    /// An empty `ScopeSpans.spans`.
    const SPAN: &[u8] = &[0x12, 0];

    /// Service, scope and number of spans of each part of a message with one span of each of `origins`.
    fn enclosed(name: &'static str, origins: &[Origin]) -> Vec<(String, String, usize)> {
        let spans: Vec<Spans> = origins.iter().map(|origin| (*origin, Bytes::from_static(SPAN))).collect();
        let resource = Resource::builder_empty().with_service_name(name).build();
        let message = Envelope::new(&resource).enclose(&spans);
        let bytes = futures::executor::block_on(http_body_util::BodyExt::collect(message)).unwrap().to_bytes();
        let request = ExportTraceServiceRequest::decode(bytes).unwrap();
        let parts = request.resource_spans.into_iter().map(|mut part| {
            let scope = part.scope_spans.remove(0);
            let service = part.resource.unwrap().attributes.remove(0).value.unwrap();
            let Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(service)) = service.value
            else {
                panic!("a service without a name")
            };
            (service, scope.scope.unwrap().name, scope.spans.len())
        });
        parts.collect()
    }

    #[test]
    fn steps_are_a_service_of_their_own() {
        use Origin::{Engine, Gateway};
        let part = |service: &str, scope: &str, spans| (service.to_owned(), scope.to_owned(), spans);
        let api = |spans| part("llm-inference-api", "gateway", spans);
        assert_eq!(enclosed("llm-inference-api", &[Gateway, Gateway]), [api(2)]);
        let engine = part("llm-inference-engine", "engine", 1);
        assert_eq!(enclosed("llm-inference-api", &[Gateway, Engine, Gateway]), [api(2), engine.clone()]);
        assert_eq!(enclosed("llm-inference-api", &[Engine]), [engine]);
        assert_eq!(enclosed("chat", &[Engine]), [part("chat-engine", "engine", 1)]);
        assert_eq!(enclosed("chat", &[]), []);
    }
}
