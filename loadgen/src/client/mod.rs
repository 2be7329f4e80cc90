//! The HTTP side: what goes on the wire, and the stamps taken there.
//!
//! - `stream`: sends one streamed request and returns its record;
//! - `sse`: bytes → events;
//! - `claims`: what the server says of the request, as far as it can be;
//! - `failure`: errors of the wire → classes;
//! - `probe`: readiness, and the cost of client and network;
//! - `metrics`: the server's `/metrics`.

mod claims;
mod failure;
mod metrics;
mod probe;
mod sse;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use serde::Serialize;
use url::Url;

use crate::words::without_secrets;

pub use metrics::Metrics;
pub use probe::{check_ready, round_trip};
pub use sse::{EVENT_LIMIT, Event, EventTooLarge, Parser};
pub use stream::{Due, stream_once};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a small request beside the load may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of `POST /generate`.
#[derive(Debug, Clone, Serialize)]
pub struct GenerateRequest<'a> {
    /// The user's message.
    pub prompt: &'a str,
    /// The most tokens to generate.
    pub max_tokens: u32,
    /// Always true here: only a stream shows its first token.
    pub stream: bool,
    /// Absent: the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Generate `max_tokens` whatever the model says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_eos: bool,
}

/// The server under load, and the one connection pool to it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Target {
    client: reqwest::Client,
    base: Url,
    /// The longest time without progress before a request is given up.
    timeout: Duration,
    /// Tokens received so far, for the progress line only.
    received: Arc<AtomicU64>,
}

impl Target {
    /// A target at `base`, where nothing may stand still for longer than `timeout`.
    ///
    /// No deadline bounds a whole answer, redirects are not followed, connections are kept alive, Nagle's algorithm is off, and no proxy
    /// from the environment stands between.
    pub fn new(base: Url, timeout: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .tcp_nodelay(true)
            .http1_only()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .user_agent(concat!("loadgen/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { client, base, timeout, received: Arc::default() })
    }

    /// The base URL as it may be shown.
    pub fn shown(&self) -> String {
        without_secrets(self.base.as_str())
    }

    /// Tokens received so far, also of answers that are not at their end.
    pub fn tokens_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }
}
