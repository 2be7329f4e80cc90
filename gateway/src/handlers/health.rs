//! `GET /health`, `/health/live` and `/health/ready`.

use axum::{Json, extract::State, response::IntoResponse};
use http::StatusCode;

use crate::{
    state::{App, Status},
    wire::models::Health,
};

/// Alive as long as it answers.
pub async fn live() -> &'static str {
    "live"
}

/// 200 only while requests are taken.
pub async fn ready(State(app): State<App>) -> (StatusCode, &'static str) {
    let status = app.status();
    (code(status), status.as_str())
}

/// How the gateway is; the status code is that of `/health/ready`.
pub async fn health(State(app): State<App>) -> impl IntoResponse {
    let status = app.status();
    let health = Health {
        status: status.as_str(),
        model: app.config().model.served_name(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.uptime().as_secs_f64(),
    };
    (code(status), Json(health)).into_response()
}

fn code(status: Status) -> StatusCode {
    match status {
        Status::Ready => StatusCode::OK,
        Status::Loading | Status::Draining | Status::Failed => StatusCode::SERVICE_UNAVAILABLE,
    }
}
