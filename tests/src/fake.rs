//! A server that takes as long as it is told, phase by phase, and publishes the metrics it is given.
//!
//! For what a real engine shows only on some machines: how near it is to the limits of its memory.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
    routing::{get, post},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

/// What one request takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Before the first token.
    pub tokenize: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// For each token after the first.
    pub per_token: Duration,
    /// Tokens of every answer.
    pub tokens: u32,
}

/// Counters and gauges: each sample's value is the number times the requests served, or the number itself.
#[derive(Debug, Clone)]
pub enum Sample {
    /// Grows with each request.
    PerRequest(&'static str, f64),
    /// Always the same.
    Constant(&'static str, f64),
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Fake {
    address: SocketAddr,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pace: Pace,
    samples: Vec<Sample>,
    served: AtomicU64,
}

impl Fake {
    /// Starts one.
    pub async fn start(pace: Pace, samples: Vec<Sample>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { pace, samples, served: AtomicU64::new(0) });
        let router = Router::new()
            .route("/generate", post(generate))
            .route("/metrics", get(metrics))
            .route("/health/{kind}", get(|| async { "" }))
            .with_state(shared);
        let server = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, server })
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn generate(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> impl IntoResponse {
    let started = Instant::now();
    let pace = shared.pace;
    let first = started + pace.tokenize + pace.prefill;
    let trace_id = headers.get("traceparent").and_then(|value| value.to_str().ok()?.get(3..35)).map(str::to_owned);
    let tokens = stream::iter(0..pace.tokens).then(move |index| async move {
        tokio::time::sleep_until(first + pace.per_token * index).await;
        event(&json!({"index": index, "text": " a", "token_ids": [index]}))
    });
    let last = stream::once(async move {
        shared.served.fetch_add(1, Ordering::Relaxed);
        let mut last = event(&summary(pace, started.elapsed(), trace_id.as_deref()));
        last.push_str("data: [DONE]\n\n");
        last
    });
    let events = tokens.chain(last).map(|event| Ok::<_, std::convert::Infallible>(Bytes::from(event)));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events))
}

/// The last event: what was late counts as `decode`.
fn summary(pace: Pace, total: Duration, trace_id: Option<&str>) -> Value {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (tokenize, prefill) = (pace.tokenize, pace.prefill);
    let decode = total.saturating_sub(tokenize + prefill);
    json!({
        "finish_reason": "length",
        "usage": {"prompt_tokens": 100, "completion_tokens": pace.tokens, "total_tokens": 100 + pace.tokens, "cached_tokens": 0},
        "timings": {
            "total_ms": millis(tokenize + prefill + decode),
            "ttft_ms": millis(tokenize + prefill),
            "phases": {
                "receive_ms": 0.0, "tokenize_ms": millis(tokenize), "queue_ms": 0.0, "prefill_ms": millis(prefill),
                "decode_ms": millis(decode), "deliver_ms": 0.0,
            },
            "stall_ms": 0.0, "preempted_ms": 0.0, "interference_ms": 0.0,
        },
        "trace_id": trace_id,
    })
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    let served = shared.served.load(Ordering::Relaxed) as f64;
    let line = |sample: &Sample| match sample {
        Sample::PerRequest(name, value) => format!("{name} {}\n", value * served),
        Sample::Constant(name, value) => format!("{name} {value}\n"),
    };
    shared.samples.iter().map(line).collect()
}
