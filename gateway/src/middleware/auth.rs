//! Bearer keys, where any are configured.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use crate::{
    error::{ApiError, ErrorCode},
    request::OpenRequest,
    state::App,
};

/// Whose request it is: the place of its key among ours, 0 where there are no keys.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub usize);

/// Lets through who has one of our keys, or everyone if there are none, and notes the [`Caller`].
pub async fn require_key(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let keys = app.keys();
    let place = if keys.is_empty() { Some(0) } else { bearer(request.headers()).and_then(|key| keys.position(key)) };
    if let Some(place) = place {
        if let Some(open) = request.extensions().get::<OpenRequest>() {
            open.note(|facts| facts.caller = Some(place));
        }
        request.extensions_mut().insert(Caller(place));
        return next.run(request).await;
    }
    let message = "give one of the gateway's keys as `authorization: Bearer KEY`";
    ApiError::new(ErrorCode::InvalidApiKey, message).into_response()
}

/// The key as it was sent: it need not be ASCII.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| key.trim_ascii())
}
