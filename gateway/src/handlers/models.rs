//! `GET /v1/models`.

use std::time::UNIX_EPOCH;

use axum::{Json, extract::State};

use crate::{
    error::ApiError,
    state::App,
    wire::models::{ModelCard, ModelList},
};

/// The model served, under its name and its aliases.
pub async fn list(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    let backend = app.backend()?;
    let settings = &app.config().model;
    let created = backend.loaded().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let names = std::iter::once(settings.served_name()).chain(settings.aliases.iter().map(String::as_str));
    let data = names.map(|name| ModelCard {
        id: name.to_owned(),
        object: "model",
        created,
        owned_by: "local",
        max_context: backend.model().max_context,
    });
    Ok(Json(ModelList { object: "list", data: data.collect() }))
}
