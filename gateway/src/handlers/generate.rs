//! `POST /generate`: a prompt in, its continuation out, whole or as events.

use axum::{Extension, extract::State, response::Response};
use engine::{GenerationRequest, PromptTemplate};

use super::reply::Reply;
use crate::{
    error::{ApiError, ErrorCode},
    ledger::Content,
    middleware::auth::Caller,
    request::OpenRequest,
    state::App,
    wire::{body::JsonBody, generate::GenerateBody},
};

/// The first part of the answer is awaited before the status is chosen: a refusal is never a broken stream.
pub async fn generate(
    State(app): State<App>,
    Extension(request): Extension<OpenRequest>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<GenerateBody>,
) -> Result<Response, ApiError> {
    body.check()?;
    let settings = &app.config().model;
    if let Some(asked) = body.model.as_deref().filter(|name| !settings.answers_to(name)) {
        let message = format!("model `{asked}` is not served here; `{}` is", settings.served_name());
        return Err(ApiError::field(ErrorCode::ModelNotFound, "model", message));
    }
    let backend = app.backend()?;
    let id = format!("gen-{}", uuid::Uuid::new_v4().simple());
    let (stop, sampling) = (body.stop(), body.sampling());
    request.note(|facts| {
        facts.response_id = Some(id.clone());
        facts.model = Some(settings.served_name().to_owned());
        facts.stream = Some(body.stream);
        facts.asked = body.asked();
        if app.telemetry().captures_content() {
            facts.content = Some(Content { prompt: body.prompt.clone(), answer: String::new() });
        }
    });
    request.received();

    let max_tokens = body.max_tokens();
    let template = if body.raw { PromptTemplate::Raw } else { PromptTemplate::Chat };
    let prompt = body.prompt;
    let prompt = backend.with_text(prompt.len(), move |text| text.encode_prompt(&prompt, template)).await?;
    request.tokenized();

    let asked = GenerationRequest {
        prompt,
        max_tokens,
        sampling,
        stop,
        ignore_eos: body.ignore_eos,
        logprobs: body.logprobs,
        // Whether a prompt was asked before shows in its time: callers learn that of their own only.
        cache_salt: caller.0 as u64,
        deadline: Some(request.started() + app.config().limits.request_timeout.get()),
        // The backend gives it one.
        tag: 0,
    };
    let mut answer = backend.submit(&request, asked, app.abort())?;
    let first = answer.next().await?;

    let reply = Reply { id, model: settings.served_name().to_owned(), text: backend.text().clone(), request, answer };
    match body.stream {
        true => Ok(reply.stream(first, app.config().server.keep_alive.get())),
        false => reply.whole(first).await,
    }
}
