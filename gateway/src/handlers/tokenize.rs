//! `POST /tokenize` and `POST /detokenize`: text to ids and back.

use axum::{Json, extract::State};
use engine::SpecialTokens;

use crate::{
    error::ApiError,
    state::App,
    wire::{
        body::JsonBody,
        tokenize::{DetokenizeBody, DetokenizedText, TokenizeBody, Tokens},
    },
};

/// Ids and pieces of a text.
pub async fn tokenize(
    State(app): State<App>,
    JsonBody(body): JsonBody<TokenizeBody>,
) -> Result<Json<Tokens>, ApiError> {
    let special = if body.add_special_tokens { SpecialTokens::Add } else { SpecialTokens::Omit };
    let bytes = body.text.len();
    let work = move |text: &engine::Text| {
        let ids = match body.parse_special {
            true => text.encode(&body.text, special)?,
            false => text.encode_plain(&body.text, special)?,
        };
        let pieces = ids.iter().map(|&id| text.piece(id).unwrap_or_default()).collect();
        Ok(Tokens { count: ids.len(), ids, pieces })
    };
    app.backend()?.with_text(bytes, work).await.map(Json)
}

/// Text of ids.
pub async fn detokenize(
    State(app): State<App>,
    JsonBody(body): JsonBody<DetokenizeBody>,
) -> Result<Json<DetokenizedText>, ApiError> {
    let bytes = body.ids.len() * size_of::<u32>();
    let text = app.backend()?.with_text(bytes, move |text| text.decode(&body.ids)).await?;
    Ok(Json(DetokenizedText { text }))
}
