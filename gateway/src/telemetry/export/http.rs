//! OTLP over HTTP: one POST of protobuf per batch.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Body, Client};

use super::{
    answer::{Refusal, Taken, read, taken},
    delivery::Transport,
    message::ExportMessage,
};

/// A client with a URL to post to.
#[derive(Debug)]
pub(in crate::telemetry) struct HttpTransport {
    client: Client,
    url: String,
    headers: HeaderMap,
}

impl HttpTransport {
    /// To `url`, with these headers each time.
    pub(in crate::telemetry) fn new(url: &str, headers: HeaderMap) -> Result<Self, reqwest::Error> {
        Ok(Self { client: Client::builder().build()?, url: url.to_owned(), headers })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, message: ExportMessage) -> Result<Taken, Refusal> {
        let post = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
            .body(Body::wrap(message));
        let response = post.send().await.map_err(|error| Refusal::unreachable(&error.without_url()))?;
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(retry_after);
        let body = read(Body::from(response)).await?;
        if status.is_success() { Ok(taken(&body.to_bytes())) } else { Err(Refusal::of_status(status, wait)) }
    }
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let date = || httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok();
    text.parse().ok().map(Duration::from_secs).or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_in_seconds_or_until_a_date() {
        let wait = |text: &'static str| retry_after(&HeaderValue::from_static(text));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), None, "it has passed");
        assert!(wait("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
    }
}
