//! What a client is told when its request is not answered: status, JSON body, and the label in metrics.
//!
//! Codes are a closed set, so each is safe as a label. A message may quote what the client sent, but never
//! more of it than `QUOTE_LIMIT`.

use std::{borrow::Cow, time::Duration};

use axum::response::{IntoResponse, Response};
use engine::{SubmitError, TextError};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::ledger::Outcome;

/// The most bytes of a message or a parameter name.
const QUOTE_LIMIT: usize = 300;

/// The most bytes of a field's name that is told to telemetry.
const PLAIN_LIMIT: usize = 64;

/// Seconds after which a client may try again that was refused for what others do.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why a request is refused or broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body is not JSON, or not an object.
    InvalidJson,
    /// A field is missing.
    MissingField,
    /// A field we do not know.
    UnknownField,
    /// A field has the wrong type or is out of its range.
    InvalidValue,
    /// The prompt does not fit the model's context.
    ContextLengthExceeded,
    /// The request names no host, or several, or none that can be.
    InvalidHost,
    /// The host it names is not answered to.
    HostNotAllowed,
    /// A browser's page of another origin asks.
    OriginNotAllowed,
    /// The key is missing or not ours.
    InvalidApiKey,
    /// Another model than the one served.
    ModelNotFound,
    /// No such route.
    RouteNotFound,
    /// The route does not take this method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The client left before its body was whole.
    BodyIncomplete,
    /// The body's framing is broken.
    BodyMalformed,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// This caller asks too often.
    RateLimited,
    /// As many requests wait as may.
    Overloaded,
    /// The model is being loaded.
    ModelLoading,
    /// The gateway is stopping.
    ShuttingDown,
    /// The request's time is up.
    DeadlineExceeded,
    /// The engine failed.
    EngineFailed,
    /// The gateway itself failed.
    Internal,
}

impl ErrorCode {
    /// The name on the wire and in `error.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::MissingField => "missing_field",
            Self::UnknownField => "unknown_field",
            Self::InvalidValue => "invalid_value",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::InvalidHost => "invalid_host",
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::InvalidApiKey => "invalid_api_key",
            Self::ModelNotFound => "model_not_found",
            Self::RouteNotFound => "route_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTimeout => "body_timeout",
            Self::BodyIncomplete => "body_incomplete",
            Self::BodyMalformed => "body_malformed",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ModelLoading => "model_loading",
            Self::ShuttingDown => "shutting_down",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::EngineFailed => "engine_failed",
            Self::Internal => "internal_error",
        }
    }

    /// The status it is sent with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson
            | Self::MissingField
            | Self::UnknownField
            | Self::InvalidValue
            | Self::ContextLengthExceeded
            | Self::InvalidHost
            | Self::BodyIncomplete
            | Self::BodyMalformed => StatusCode::BAD_REQUEST,
            Self::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Self::HostNotAllowed | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::ModelNotFound | Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::ModelLoading | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::EngineFailed | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How a request ended that is refused with this.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::BodyIncomplete => Outcome::Cancelled,
            Self::DeadlineExceeded => Outcome::Deadline,
            Self::RateLimited | Self::Overloaded | Self::ModelLoading => Outcome::Overloaded,
            Self::ShuttingDown | Self::EngineFailed | Self::Internal => Outcome::Error,
            _ => Outcome::Invalid,
        }
    }

    /// The coarse `type` that OpenAI's clients look at.
    fn kind(self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::INTERNAL_SERVER_ERROR => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// Whether part of the body may still be unread, so that the connection cannot be used again.
    fn leaves_body_unread(self) -> bool {
        matches!(self, Self::BodyTooLarge | Self::BodyTimeout | Self::BodyIncomplete | Self::BodyMalformed)
    }
}

/// A request that is not answered, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    param: Option<String>,
    retry_after_seconds: Option<u64>,
}

/// What was wrong, without anything that should not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(pub Cow<'static, str>);

/// The error object on the wire.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'static str,
    code: &'static str,
    param: Option<&'a str>,
}

impl ApiError {
    /// An error of the request as a whole.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let unavailable = code.status() == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after_seconds = unavailable.then_some(RETRY_AFTER_SECONDS);
        Self { code, message: quoted(message.into()), param: None, retry_after_seconds }
    }

    /// An error of one field.
    pub fn field(code: ErrorCode, param: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        let param = quoted(Cow::Owned(param.into())).into_owned();
        Self { param: Some(param), ..Self::new(code, message) }
    }

    /// A field out of its range; the message is the field's name and what it must be.
    pub fn invalid(param: &'static str, must: &str) -> Self {
        Self::field(ErrorCode::InvalidValue, param, format!("{param} {must}"))
    }

    /// A caller who asks too often, and may again after `wait`.
    pub fn rate_limited(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many requests; the next one may come in {seconds} s");
        Self { retry_after_seconds: Some(seconds), ..Self::new(ErrorCode::RateLimited, message) }
    }

    /// Why.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What was wrong, as telemetry may tell it: names and limits, and nothing else that the client sent.
    pub fn description(&self) -> Description {
        let param = self.param.as_deref().filter(|name| is_plain(name));
        let words = || self.code.as_str().replace('_', " ");
        let about_param = |what: &str| match param {
            Some(name) => format!("{name}: {what}"),
            None => what.to_owned(),
        };
        Description(match (&self.message, self.code) {
            // What is written in the program quotes nobody.
            (Cow::Borrowed(text), _) => Cow::Borrowed(*text),
            // Made of our own names, numbers and positions.
            (
                message,
                ErrorCode::InvalidJson
                | ErrorCode::ContextLengthExceeded
                | ErrorCode::BodyTooLarge
                | ErrorCode::RateLimited
                | ErrorCode::Overloaded,
            ) => message.clone(),
            (_, ErrorCode::UnknownField | ErrorCode::MissingField) => {
                Cow::Owned(param.map_or_else(words, |name| format!("{} {name}", words())))
            }
            (message, ErrorCode::InvalidValue) if param.is_some_and(|name| is_rule(message, name)) => message.clone(),
            // What was expected comes last, after what there was instead.
            (message, ErrorCode::InvalidValue) => Cow::Owned(match message.rsplit_once(", expected ") {
                Some((_, expected)) => about_param(&format!("expected {expected}")),
                None => about_param(&words()),
            }),
            _ => Cow::Owned(about_param(&words())),
        })
    }

    /// As the error object in JSON.
    pub fn to_json(&self) -> String {
        let body = ErrorBody {
            error: ErrorObject {
                message: &self.message,
                r#type: self.code.kind(),
                code: self.code.as_str(),
                param: self.param.as_deref(),
            },
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl IntoResponse for ApiError {
    /// The response carries the [`ErrorCode`] and the [`Description`] as extensions, for whoever keeps the ledger.
    fn into_response(self) -> Response {
        let status = self.code.status();
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (status, json, self.to_json()).into_response();
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        if let Some(seconds) = self.retry_after_seconds {
            set(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            set(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.code.leaves_body_unread() {
            set(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(self.code);
        response.extensions_mut().insert(self.description());
        response
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::QueueFull { .. } => Self::new(ErrorCode::Overloaded, message),
            SubmitError::PromptTooLong { .. } => Self::field(ErrorCode::ContextLengthExceeded, "prompt", message),
            SubmitError::EmptyPrompt => Self::field(ErrorCode::InvalidValue, "prompt", message),
            SubmitError::Stopped => Self::new(ErrorCode::ShuttingDown, message),
        }
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        let message = error.to_string();
        match error {
            TextError::Tokenize(_) => Self::field(ErrorCode::InvalidValue, "prompt", message),
            TextError::UnknownId { .. } => Self::field(ErrorCode::InvalidValue, "ids", message),
            TextError::Template(_) => Self::new(ErrorCode::Internal, message),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    /// Rendering our own shapes failed.
    fn from(error: serde_json::Error) -> Self {
        Self::new(ErrorCode::Internal, format!("the answer could not be rendered: {error}"))
    }
}

/// Whether a field's name looks like one, and not like something secret: words of letters, and indices.
fn is_plain(name: &str) -> bool {
    let is_word = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let is_index = |part: &str| part.strip_suffix(']').is_some_and(|n| n.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= PLAIN_LIMIT && name.split(['.', '[']).all(|part| is_word(part) || is_index(part))
}

/// Whether `message` says what a field must be, in words of ours.
fn is_rule(message: &str, field: &str) -> bool {
    message.strip_prefix(field).is_some_and(|rest| rest.starts_with(" must "))
}

/// `text`, cut at a character border where it is longer than we quote.
fn quoted(mut text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() > QUOTE_LIMIT {
        let end = text.floor_char_boundary(QUOTE_LIMIT);
        text.to_mut().truncate(end);
        text.to_mut().push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_quotation_is_cut_between_characters() {
        let error = ApiError::field(ErrorCode::UnknownField, "é".repeat(1000), "ü".repeat(1000));
        assert!(error.to_json().len() < 3 * QUOTE_LIMIT);
        assert!(error.message.ends_with('…'));
    }

    #[test]
    fn a_description_names_fields_and_limits_and_quotes_nothing() {
        let field = ApiError::field;
        let cases = [
            (
                field(ErrorCode::UnknownField, "promt", "unknown field `promt`, expected ...".to_owned()),
                "unknown field promt",
            ),
            (
                field(ErrorCode::UnknownField, "sk-4711", "unknown field `sk-4711`, expected ...".to_owned()),
                "unknown field",
            ),
            (field(ErrorCode::UnknownField, "say it", "unknown field `say it`".to_owned()), "unknown field"),
            (field(ErrorCode::MissingField, "prompt", "missing field `prompt`".to_owned()), "missing field prompt"),
            (
                field(
                    ErrorCode::InvalidValue,
                    "seed",
                    "seed: invalid type: string \"a, expected b\", expected u64".to_owned(),
                ),
                "seed: expected u64",
            ),
            (
                field(ErrorCode::InvalidValue, "stop[2]", "stop[2] must have 1 to 256 bytes".to_owned()),
                "stop[2] must have 1 to 256 bytes",
            ),
            (field(ErrorCode::InvalidValue, "bias.4711", "bias.4711: no".to_owned()), "invalid value"),
            (ApiError::invalid("top_p", "must be at most 1"), "top_p must be at most 1"),
            (
                field(ErrorCode::ModelNotFound, "model", "model `secret` is not served".to_owned()),
                "model: model not found",
            ),
            (
                ApiError::new(ErrorCode::BodyTooLarge, format!("the body is larger than {} bytes", 9)),
                "the body is larger than 9 bytes",
            ),
            (ApiError::new(ErrorCode::Internal, "chat template: <secret>".to_owned()), "internal error"),
            (ApiError::new(ErrorCode::ShuttingDown, "the gateway is stopping"), "the gateway is stopping"),
        ];
        for (error, description) in cases {
            assert_eq!(error.description().0, description, "{error:?}");
        }
    }

    #[test]
    fn the_error_object_is_openais() {
        let json = ApiError::invalid("top_p", "must be at most 1").to_json();
        assert_eq!(
            json,
            r#"{"error":{"message":"top_p must be at most 1","type":"invalid_request_error","code":"invalid_value","param":"top_p"}}"#
        );
    }

    #[test]
    fn an_overloaded_answer_says_when_to_come_back() {
        let response = ApiError::new(ErrorCode::Overloaded, "full").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.extensions().get(), Some(&ErrorCode::Overloaded));
    }

    #[test]
    fn a_limited_caller_is_told_whole_seconds_that_suffice() {
        for (millis, seconds) in [(1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
            let response = ApiError::rate_limited(Duration::from_millis(millis)).into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
