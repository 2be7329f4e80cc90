//! One answer as it comes out of the engine, watched for the ledger.

use std::time::Instant;

use engine::{Event, FinishReason, Finished, Generation, Token};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{ApiError, ErrorCode},
    ledger::Outcome,
    request::OpenRequest,
    telemetry::StepTag,
};

/// A part of an answer.
#[derive(Debug)]
pub enum Part {
    /// One more token.
    Token(Token),
    /// The end of a whole answer.
    End(Finished),
}

/// A running generation. However it is left, the ledger gets the engine's last stamps, and the engine stops.
#[derive(Debug)]
pub struct Answer {
    generation: Generation,
    request: OpenRequest,
    /// Its steps are noted as long as it is here.
    _tag: Option<StepTag>,
    abort: CancellationToken,
    last_token: Option<Instant>,
}

impl Answer {
    pub(super) fn new(
        generation: Generation,
        (request, tag): (OpenRequest, Option<StepTag>),
        abort: CancellationToken,
    ) -> Self {
        Self { generation, request, _tag: tag, abort, last_token: None }
    }

    /// The next part. An error is final, as is [`Part::End`]. Safe to drop while waiting.
    pub async fn next(&mut self) -> Result<Part, ApiError> {
        let event = tokio::select! {
            biased;
            event = self.generation.next() => event,
            () = self.abort.cancelled() => {
                return Err(self.fail(ErrorCode::ShuttingDown, "the gateway is stopping"));
            }
        };
        match event {
            Some(Event::Token(token)) => {
                self.saw(&token);
                Ok(Part::Token(token))
            }
            Some(Event::Finished(finished)) => self.finish(finished),
            Some(Event::Failed(failure)) => {
                tracing::error!(error = %failure, trace_id = self.request.trace_id(), "the engine failed a request");
                Err(self.fail(ErrorCode::EngineFailed, "the engine failed"))
            }
            None => Err(self.fail(ErrorCode::ShuttingDown, "the engine has stopped")),
        }
    }

    fn saw(&mut self, token: &Token) {
        if let Some(before) = self.last_token.replace(token.sampled_at) {
            self.request.token(token.sampled_at.saturating_duration_since(before));
        }
        self.request.capture(&token.text);
    }

    fn finish(&mut self, finished: Finished) -> Result<Part, ApiError> {
        self.request.stamp(self.generation.stamps());
        self.request.capture(&finished.text);
        match finished.reason {
            FinishReason::Stop => self.request.answered(Outcome::Stop),
            FinishReason::Length => self.request.answered(Outcome::Length),
            FinishReason::Deadline => {
                return Err(self.fail(ErrorCode::DeadlineExceeded, "the request's time is up"));
            }
        }
        Ok(Part::End(finished))
    }

    fn fail(&self, code: ErrorCode, message: &'static str) -> ApiError {
        let error = ApiError::new(code, message);
        self.request.failed(code, Some(error.description()));
        error
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.request.stamp(self.generation.stamps());
    }
}
