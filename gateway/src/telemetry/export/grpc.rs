//! OTLP over gRPC: one unary call per batch, whose message is bytes already.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use tonic::{Code, Status, body::Body, transport::Channel};
use tonic_types::StatusExt;
use tower::{Service, ServiceExt};

use super::{
    answer::{Refusal, Retry, Taken, read, taken},
    delivery::Transport,
    message::ExportMessage,
};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Bytes before a message: whether it is compressed, and its length.
const FRAME: usize = 5;

/// A channel that connects when it is used, and again when it was broken.
#[derive(Debug)]
pub(in crate::telemetry) struct GrpcTransport {
    channel: Channel,
    headers: HeaderMap,
}

impl GrpcTransport {
    /// To `url`, with these headers each time. To be called on the runtime that it will live on.
    pub(in crate::telemetry) fn new(url: &str, headers: HeaderMap) -> Result<Self, http::uri::InvalidUri> {
        Ok(Self { channel: Channel::from_shared(url.to_owned())?.connect_lazy(), headers })
    }
}

impl Transport for GrpcTransport {
    async fn send(&self, message: ExportMessage) -> Result<Taken, Refusal> {
        let mut request = Request::new(Body::new(message.framed()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(METHOD);
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let mut channel = self.channel.clone();
        let channel = channel.ready().await.map_err(|error| Refusal::unreachable(&error))?;
        let response = channel.call(request).await.map_err(|error| Refusal::unreachable(&error))?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(Refusal::of_status(head.status, None));
        }
        // An answer without a message has its status in the head.
        let early = Status::from_header_map(&head.headers);
        let body = read(body).await?;
        let status = early.or_else(|| body.trailers().and_then(Status::from_header_map));
        match status {
            Some(status) if status.code() == Code::Ok => Ok(taken(body.to_bytes().get(FRAME..).unwrap_or_default())),
            Some(status) => Err(refusal(&status)),
            None => Err(Refusal::passing("the collector broke off its answer")),
        }
    }
}

/// What OTLP says of each code.
fn refusal(status: &Status) -> Refusal {
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay).filter(|wait| *wait > Duration::ZERO);
    let retry = match (status.code(), wait) {
        (Code::ResourceExhausted | Code::Unavailable, Some(wait)) => Retry::After(wait),
        (
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss,
            _,
        ) => Retry::Soon,
        _ => Retry::Never,
    };
    Refusal::new(format!("the collector answers {:?}: {}", status.code(), status.message()), retry)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let retry = |status: Status| refusal(&status).retry;
        let wait = Duration::from_secs(3);
        let later = |code| Status::with_error_details(code, "", ErrorDetails::with_retry_info(Some(wait)));
        assert_eq!(retry(Status::unavailable("")), Retry::Soon);
        assert_eq!(retry(Status::deadline_exceeded("")), Retry::Soon);
        assert_eq!(retry(later(Code::Unavailable)), Retry::After(wait));
        assert_eq!(retry(later(Code::ResourceExhausted)), Retry::After(wait));
        assert_eq!(retry(Status::resource_exhausted("")), Retry::Never);
        assert_eq!(retry(Status::unauthenticated("")), Retry::Never);
        assert_eq!(retry(Status::invalid_argument("")), Retry::Never);
    }
}
