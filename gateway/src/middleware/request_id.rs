//! An id on every response, and an answer even where a handler panicked.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderName, HeaderValue};

use crate::error::{ApiError, ErrorCode};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST: usize = 128;

/// The id of a request: the client's if it is sane, else a new one.
#[derive(Debug, Clone)]
pub struct RequestId(pub HeaderValue);

impl RequestId {
    fn of(request: &Request) -> Self {
        let sane = |value: &&HeaderValue| {
            !value.is_empty() && value.len() <= LONGEST && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        Self(request.headers().get(HEADER).filter(sane).cloned().unwrap_or_else(Self::random))
    }

    fn random() -> HeaderValue {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// Gives the request its id and the response the same.
pub async fn request_id(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response =
        answered.unwrap_or_else(|_| ApiError::new(ErrorCode::Internal, "the gateway failed").into_response());
    response.headers_mut().insert(HEADER, id.0);
    response
}
