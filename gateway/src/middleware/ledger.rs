//! Opens the ledger of an inference request as its head arrives, and closes it when its answer is out.
//!
//! The guard that closes it goes from here into the response's body, and from its end to the connection,
//! which lets go of it once the last byte is in the socket. Wherever it is lost on the way, the request was
//! cancelled.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::request_id::RequestId;
use crate::{
    connection::Delivery,
    error::ErrorCode,
    ledger::Facts,
    request::{OpenRequest, RequestGuard},
    state::App,
};

const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Keeps the ledger of requests to `route`.
pub async fn keep_ledger(
    State((app, route)): State<(App, &'static str)>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.0.to_str().ok()).unwrap_or_default().to_owned();
    let facts = Facts { request_id: id, ..Facts::default() };
    let (open, guard) = OpenRequest::begin(&app, route, request.headers(), facts);
    let delivery = request.extensions().get::<Delivery>().cloned();
    request.extensions_mut().insert(open.clone());

    let mut response = next.run(request).await;

    let status = response.status().as_u16();
    open.note(|facts| facts.status = Some(status));
    if let Some(&code) = response.extensions().get::<ErrorCode>() {
        open.failed(code, response.extensions().get().cloned());
    }
    for (name, value) in [(TRACE_ID, open.trace_id()), (TRACE_RESPONSE, open.traceparent())] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response.map(|body| Body::new(LedgerBody { body, guard: Some(guard), delivery }))
}

/// A response's body that carries the guard of its request.
///
/// The body comes first: it is dropped, and with it the generation, before the guard closes the ledger.
struct LedgerBody {
    body: Body,
    guard: Option<RequestGuard>,
    delivery: Option<Delivery>,
}

impl LedgerBody {
    /// The last frame was taken: what is left is to hand it to the socket.
    fn ended(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        match self.delivery.take() {
            Some(delivery) => delivery.expect(guard),
            None => guard.complete(),
        }
    }
}

impl HttpBody for LedgerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(Ok(frame)), Some(guard)) = (&frame, &self.guard) {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            guard.request().note(|facts| facts.bytes_sent += bytes);
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
