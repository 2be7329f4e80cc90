//! Every route, and what surrounds it.

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};

use crate::{
    handlers::{debug, fallback, generate, health, metrics, models, tokenize},
    middleware::{
        auth::require_key,
        ledger::keep_ledger,
        origin::{check_origin, cors},
        rate_limit::limit_rate,
        request_id::request_id,
    },
    state::App,
};

/// The gateway's routes.
pub fn router(app: App) -> Router {
    let rate = from_fn_with_state(app.clone(), limit_rate);
    let key = from_fn_with_state(app.clone(), require_key);
    let ledger = |route: &'static str| from_fn_with_state((app.clone(), route), keep_ledger);
    let mut shown = Router::new();
    if app.recent().is_some() {
        shown = shown.route("/debug/requests", get(debug::requests).route_layer(key.clone()));
    }
    Router::new()
        .merge(shown)
        .route(
            "/generate",
            post(generate::generate)
                .route_layer(rate.clone())
                .route_layer(key.clone())
                .route_layer(ledger("/generate")),
        )
        .route("/tokenize", post(tokenize::tokenize).route_layer(rate.clone()).route_layer(key.clone()))
        .route("/detokenize", post(tokenize::detokenize).route_layer(rate).route_layer(key.clone()))
        .route("/v1/models", get(models::list).route_layer(key))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(tower::util::option_layer(cors(&app)))
        .layer(from_fn_with_state(app.clone(), check_origin))
        .layer(from_fn(request_id))
        .with_state(app)
}
