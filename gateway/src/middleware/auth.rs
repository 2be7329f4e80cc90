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

/// Lets through who has one of our keys, or everyone if there are none.
pub async fn require_key(State(app): State<App>, request: Request, next: Next) -> Response {
    let keys = app.keys();
    if keys.is_empty() || bearer(request.headers()).is_some_and(|key| keys.contains(key)) {
        return next.run(request).await;
    }
    let message = "give one of the gateway's keys as `authorization: Bearer KEY`";
    ApiError::new(ErrorCode::InvalidApiKey, message).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
