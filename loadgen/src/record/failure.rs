//! Why a request failed: a class to count by, and what was said of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words::plain;

/// Why a request failed: a closed set, so that failures can be counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// No connection could be made.
    Connect,
    /// The server's machine refused the connection.
    Refused,
    /// The server's name could not be resolved.
    Dns,
    /// No secure connection could be agreed upon.
    Tls,
    /// No connection was made in time.
    ConnectTimeout,
    /// The connection was reset before the answer ended.
    Reset,
    /// The connection was closed before the answer ended.
    Closed,
    /// An answer that leads elsewhere; it is not followed.
    Redirect,
    /// More headers, or larger ones, than are read.
    HeadersTooLarge,
    /// The answer's body is not in the encoding that it claims, or in one that was not asked for.
    ContentEncoding,
    /// The answer is no event stream.
    NotAStream,
    /// A streamed event is not the JSON that was expected.
    MalformedEvent,
    /// The answer, or an event of it, is larger than what is read.
    TooLarge,
    /// No text arrived within the timeout.
    FirstTokenTimeout,
    /// The stream stood still longer than the timeout.
    IdleTimeout,
    /// An answer with a status other than 200.
    Http(u16),
    /// An `event: error` after the stream began.
    InStream,
    /// The answer is not HTTP.
    Protocol,
    /// The stream ended cleanly, but before its end was announced.
    Truncated,
    /// Cut by this side when the run was interrupted; not counted as a failure.
    Interrupted,
    /// Cut by this side when the run time and its grace were over; not counted as a failure.
    Cut,
}

impl ErrorClass {
    /// Whether this side ended the request: then it says nothing of the server.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Interrupted | Self::Cut)
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => formatter.write_str("connect"),
            Self::Refused => formatter.write_str("refused"),
            Self::Dns => formatter.write_str("dns"),
            Self::Tls => formatter.write_str("tls"),
            Self::ConnectTimeout => formatter.write_str("connect_timeout"),
            Self::Reset => formatter.write_str("reset"),
            Self::Closed => formatter.write_str("closed"),
            Self::Redirect => formatter.write_str("redirect"),
            Self::HeadersTooLarge => formatter.write_str("headers_too_large"),
            Self::ContentEncoding => formatter.write_str("content_encoding"),
            Self::NotAStream => formatter.write_str("not_a_stream"),
            Self::MalformedEvent => formatter.write_str("malformed_event"),
            Self::TooLarge => formatter.write_str("too_large"),
            Self::FirstTokenTimeout => formatter.write_str("first_token_timeout"),
            Self::IdleTimeout => formatter.write_str("idle_timeout"),
            Self::Http(status) => write!(formatter, "http_{status}"),
            Self::InStream => formatter.write_str("in_stream"),
            Self::Protocol => formatter.write_str("protocol"),
            Self::Truncated => formatter.write_str("truncated"),
            Self::Interrupted => formatter.write_str("interrupted"),
            Self::Cut => formatter.write_str("cut"),
        }
    }
}

impl Serialize for ErrorClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ErrorClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = [
            Self::Connect,
            Self::Refused,
            Self::Dns,
            Self::Tls,
            Self::ConnectTimeout,
            Self::Reset,
            Self::Closed,
            Self::Redirect,
            Self::HeadersTooLarge,
            Self::ContentEncoding,
            Self::NotAStream,
            Self::MalformedEvent,
            Self::TooLarge,
            Self::FirstTokenTimeout,
            Self::IdleTimeout,
            Self::InStream,
            Self::Protocol,
            Self::Truncated,
            Self::Interrupted,
            Self::Cut,
        ];
        if let Some(status) = name.strip_prefix("http_").and_then(|status| status.parse().ok()) {
            return Ok(Self::Http(status));
        }
        known
            .into_iter()
            .find(|class| class.to_string() == name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown error class {name:?}")))
    }
}

/// A failure with what the server or the transport said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which kind.
    pub class: ErrorClass,
    /// In words, at most [`Failure::MESSAGE_LIMIT`] characters.
    pub message: String,
}

impl Failure {
    /// Messages are cut here: what a server writes must not grow the record.
    pub const MESSAGE_LIMIT: usize = 300;

    /// A failure of `class`.
    pub fn new(class: ErrorClass, message: impl fmt::Display) -> Self {
        Self { class, message: plain(&message.to_string(), Self::MESSAGE_LIMIT) }
    }
}
