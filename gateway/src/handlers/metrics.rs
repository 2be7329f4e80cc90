//! `GET /metrics`.

use axum::{extract::State, response::IntoResponse};
use http::header;

use crate::state::App;

/// Everything measured, as Prometheus text.
pub async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.telemetry().render_prometheus())
}
