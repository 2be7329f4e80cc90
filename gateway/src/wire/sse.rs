//! Server-sent events as bytes.

use bytes::Bytes;
use serde::Serialize;

use crate::error::ApiError;

/// The end of a stream that is whole.
pub const DONE: &str = "data: [DONE]\n\n";

/// A comment that keeps the connection from looking dead.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// An event whose data is `value` in JSON, which has no line breaks of its own.
pub fn data(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(format!("data: {}\n\n", serde_json::to_string(value)?))
}

/// The event that ends a stream which cannot go on.
pub fn error(error: &ApiError) -> Bytes {
    Bytes::from(format!("event: error\ndata: {}\n\n", error.to_json()))
}
