//! `GET /v1/models` and `GET /health`.

use serde::Serialize;

/// OpenAI's list of models.
#[derive(Debug, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// The models.
    pub data: Vec<ModelCard>,
}

/// One model in the list.
#[derive(Debug, Serialize)]
pub struct ModelCard {
    /// The name to ask for.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// When it was loaded, in Unix seconds.
    pub created: u64,
    /// Always `local`.
    pub owned_by: &'static str,
    /// The most tokens of prompt and answer together.
    pub max_context: usize,
}

/// How the gateway is.
#[derive(Debug, Serialize)]
pub struct Health<'a> {
    /// `ready`, `loading` or `draining`.
    pub status: &'static str,
    /// The model served, or being loaded.
    pub model: &'a str,
    /// This program's version.
    pub version: &'static str,
    /// Seconds since start.
    pub uptime_s: f64,
}
