//! Reading a JSON body: bounded in size and time, with errors that name the field.

use std::{error::Error, io};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    error::{ApiError, ErrorCode},
    state::App,
};

/// A JSON object read from a request's body.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        check_media_type(&head.headers)?;
        let limits = &app.config().limits;
        let reading = read(body, limits.max_body_bytes.0);
        let bytes = tokio::time::timeout(limits.body_timeout.get(), reading)
            .await
            .map_err(|_| ApiError::new(ErrorCode::BodyTimeout, "the body did not arrive in time"))??;
        parse(&bytes).map(Self)
    }
}

/// JSON in UTF-8, under any of the names that these have.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported = |message| Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(is_json) {
        return unsupported("content-type must be application/json");
    }
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    let is_utf8 = |charset: &str| ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
    if charset.is_some_and(|charset| !is_utf8(charset)) {
        return unsupported("the body's charset must be utf-8");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            unsupported("content-encoding is not supported")
        }
        _ => Ok(()),
    }
}

fn is_json(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The whole body. What is announced as too large is not read at all, the rest is cut at the limit.
async fn read(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(ErrorCode::BodyTooLarge, format!("the body is larger than {limit} bytes"));
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = BytesMut::with_capacity(announced.lower() as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_off(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Why a body cannot be read to its end: its framing is wrong, or else its sender is gone.
fn broken_off(error: &axum::Error) -> ApiError {
    let causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |error| Error::source(*error));
    let kinds = causes.filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kinds.last() {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            ApiError::new(ErrorCode::BodyMalformed, "the body's chunks are malformed")
        }
        _ => ApiError::new(ErrorCode::BodyIncomplete, "the body broke off"),
    }
}

/// A field that may be `null`, which is as if it were absent.
pub(crate) fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A `T` from a JSON object.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Serde reads a struct from an array as well; our interface does not.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::new(ErrorCode::InvalidJson, "the body must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| explain(&error))?;
    json.end()
        .map_err(|error| ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON: {error}")))?;
    Ok(value)
}

/// What is wrong, with the field's name: from the path, or where serde knows no path, from its message.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let message = error.inner().to_string();
    if !error.inner().is_data() {
        return ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON: {message}"));
    }
    let path = error.path().to_string();
    let (code, quoted) = match message.split('`').collect::<Vec<_>>()[..] {
        ["missing field ", name, ..] => (ErrorCode::MissingField, Some(name)),
        ["unknown field ", name, ..] => (ErrorCode::UnknownField, Some(name)),
        ["duplicate field ", name, ..] => (ErrorCode::InvalidValue, Some(name)),
        _ => (ErrorCode::InvalidValue, None),
    };
    let param = quoted.unwrap_or(&path);
    let named = if quoted.is_some() { message.clone() } else { format!("{param}: {message}") };
    ApiError::field(code, param, named)
}
