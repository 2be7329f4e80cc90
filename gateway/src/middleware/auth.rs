//! Bearer keys, where any are configured.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use crate::{
    error::{ApiError, ErrorCode},
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
        request.extensions_mut().insert(Caller(place));
        return next.run(request).await;
    }
    let message = "give one of the gateway's keys as `authorization: Bearer KEY`";
    ApiError::new(ErrorCode::InvalidApiKey, message).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
