//! `GET /debug/requests`.

use axum::{Extension, Json, extract::State};
use http::Uri;

use crate::{
    error::{ApiError, ErrorCode},
    middleware::auth::Caller,
    recent::Order,
    state::App,
    wire::debug::{RequestBody, RequestList},
};

/// The caller's last requests that ended, the slowest first: `?sort=total|receive|…|deliver` and `?limit=N`.
pub async fn requests(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<RequestList>, ApiError> {
    let asked = Asked::read(&uri)?;
    let slowest = app.recent().map(|recent| recent.slowest(caller.0, asked.order, asked.limit)).unwrap_or_default();
    Ok(Json(RequestList { requests: slowest.iter().map(RequestBody::from).collect() }))
}

struct Asked {
    order: Order,
    limit: usize,
}

impl Asked {
    fn read(uri: &Uri) -> Result<Self, ApiError> {
        let mut asked = Self { order: Order::Total, limit: usize::MAX };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "sort" => {
                    let must = "must be `total` or the name of a phase";
                    asked.order = Order::parse(&value).ok_or_else(|| ApiError::invalid("sort", must))?;
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    asked.limit = limit.ok_or_else(|| ApiError::invalid("limit", "must be a whole number above 0"))?;
                }
                _ => {
                    // Cut: it is the client's text.
                    let name: String = name.chars().take(64).collect();
                    return Err(ApiError::field(ErrorCode::UnknownField, name, "there are `sort` and `limit`"));
                }
            }
        }
        Ok(asked)
    }
}
