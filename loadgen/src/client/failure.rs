//! What went wrong on the wire, by class: from the errors of reqwest, hyper and the operating system.

use std::error::Error;
use std::io::{self, ErrorKind};

use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use url::Url;

use crate::record::{ErrorClass, Failure};
use crate::words::without_secrets;

/// A transport error in words, with its innermost cause: reqwest's own text leaves it out.
pub(super) fn transport(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    Failure::new(class(&error), causes(&error))
}

fn class(error: &reqwest::Error) -> ErrorClass {
    let hyper = || chain(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let kind = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind);
    if error.is_dns() {
        ErrorClass::Dns
    } else if error.is_connect() {
        match kind {
            Some(ErrorKind::ConnectionRefused) => ErrorClass::Refused,
            Some(ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof) => ErrorClass::Tls,
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => ErrorClass::Reset,
            _ if error.is_timeout() => ErrorClass::ConnectTimeout,
            _ => ErrorClass::Connect,
        }
    } else if hyper().is_some_and(hyper::Error::is_parse_too_large) {
        ErrorClass::HeadersTooLarge
    } else if hyper().is_some_and(hyper::Error::is_parse) {
        ErrorClass::Protocol
    } else if error.is_decode() && hyper().is_none() {
        ErrorClass::ContentEncoding
    } else if let Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted) = kind {
        ErrorClass::Reset
    } else if let Some(ErrorKind::InvalidData | ErrorKind::InvalidInput) = kind {
        ErrorClass::Protocol
    } else if hyper().is_some_and(|error| error.is_incomplete_message() || kind == Some(ErrorKind::UnexpectedEof)) {
        ErrorClass::Closed
    } else if hyper().is_some_and(hyper::Error::is_user) {
        ErrorClass::Protocol
    } else {
        ErrorClass::Reset
    }
}

/// Why `response`, whose status says that all is well, is still not the stream that was asked for.
pub(super) fn not_a_stream(response: &Response) -> Option<Failure> {
    let header = |name| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    // What reqwest decodes it takes from the headers.
    let encoding = header(CONTENT_ENCODING).filter(|encoding| !encoding.trim().eq_ignore_ascii_case("identity"));
    if let Some(encoding) = encoding.filter(|encoding| !encoding.trim().is_empty()) {
        let message = format!("the answer's content encoding is {encoding:?}, which was not asked for");
        return Some(Failure::new(ErrorClass::ContentEncoding, message));
    }
    let content_type = header(CONTENT_TYPE).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    (!media_type.eq_ignore_ascii_case("text/event-stream")).then(|| {
        let message = format!("expected an event stream, got content type {content_type:?}");
        Failure::new(ErrorClass::NotAStream, message)
    })
}

/// A redirect, which is not followed: the load was meant for the server that was named.
pub(super) fn redirect(response: &Response) -> Failure {
    let location = response.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let status = response.status();
    let message = match location.map(|location| response.url().join(&location)) {
        Some(Ok(to)) => format!("{status} to {}, not followed", origin(&to)),
        Some(Err(_)) => format!("{status} to what is no URL"),
        None => format!("{status} to nowhere"),
    };
    Failure::new(ErrorClass::Redirect, message)
}

fn origin(url: &Url) -> String {
    match url.origin().is_tuple() {
        true => without_secrets(&url.origin().ascii_serialization()),
        false => format!("a {} URL", url.scheme()),
    }
}

/// The innermost cause of an error, after its own text.
pub(super) fn causes(error: &reqwest::Error) -> String {
    chain(error).skip(1).last().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// An error and its causes; what an I/O error wraps is one of them.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        wrapped.map(|inner| inner as &'a (dyn Error + 'static)).or_else(|| error.source())
    })
}
