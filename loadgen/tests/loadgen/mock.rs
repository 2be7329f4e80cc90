//! A server that streams `/generate` as told and remembers what it got and when it answered.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep_until;

/// What the server does with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behaviour {
    /// An empty event at once, the first text after `ttft`, then one more token each `gap`.
    Answer { ttft: Duration, gap: Duration, tokens: u32 },
    /// 503 with an error object.
    Refuse,
    /// One token, then `event: error`.
    FailInStream,
    /// One token, then the connection breaks.
    Break,
    /// One token, then nothing but comments.
    Stall,
    /// Only comments.
    Silence,
    /// One token, then a clean end.
    Truncate,
    /// 200, but no event stream.
    Html,
}

/// A quick answer of eight tokens.
pub(crate) const QUICK: Behaviour =
    Behaviour::Answer { ttft: Duration::from_millis(20), gap: Duration::from_millis(5), tokens: 8 };

/// One request to `/generate`.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// When each event with text was handed out.
    pub(crate) sent: Vec<Instant>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    seen: Mutex<Vec<Seen>>,
}

/// The running server; it ends with its runtime.
#[derive(Debug, Clone)]
pub(crate) struct Mock {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl Mock {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let shared = Arc::new(Shared { behaviour, seen: Mutex::default() });
        let router = Router::new()
            .route("/generate", post(generate))
            .route("/health/ready", get(|| async {}))
            .route("/health/live", get(|| async {}))
            .route("/metrics", get(metrics))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn generate(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let at = Instant::now();
    let trace_id = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(|v| v.get(3..35));
    let trace_id = trace_id.unwrap_or("").to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen { at, headers, body, sent: Vec::new() });
        seen.len() - 1
    };
    let token = Ok(Bytes::from("data: {\"index\":0,\"text\":\"a\",\"token_ids\":[1]}\n\n"));
    let comments = || stream::repeat(()).map(|()| Ok(Bytes::from(": keep-alive\n\n"))).then(pause);
    let stream: BoxStream<'static, Result<Bytes, std::io::Error>> = match shared.behaviour {
        Behaviour::Answer { ttft, gap, tokens } => answer(shared, number, trace_id, [ttft, gap], tokens),
        Behaviour::Refuse => {
            let error = json!({"error": {"message": "the queue is full", "type": "overloaded", "code": null}});
            return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response();
        }
        Behaviour::FailInStream => {
            let error = Ok(Bytes::from("event: error\ndata: {\"error\":{\"message\":\"the engine failed\"}}\n\n"));
            stream::iter([token, error]).boxed()
        }
        // The pause lets the token out before the connection goes.
        Behaviour::Break => stream::iter([token, Err(std::io::Error::other("broken"))]).then(pause).boxed(),
        Behaviour::Stall => stream::iter([token]).chain(comments()).boxed(),
        Behaviour::Silence => comments().boxed(),
        Behaviour::Truncate => stream::iter([token]).boxed(),
        Behaviour::Html => return "<p>hello</p>".into_response(),
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
}

async fn pause<T>(item: T) -> T {
    tokio::time::sleep(Duration::from_millis(20)).await;
    item
}

fn answer(
    shared: Arc<Shared>,
    number: usize,
    trace_id: String,
    [ttft, gap]: [Duration; 2],
    tokens: u32,
) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
    let start = shared.seen.lock().unwrap()[number].at;
    let role = stream::once(async { Bytes::from("data: {\"index\":0,\"text\":\"\",\"token_ids\":[]}\n\n") });
    let text = stream::iter(0..tokens).then(move |index| {
        let shared = Arc::clone(&shared);
        async move {
            sleep_until((start + ttft + gap * index).into()).await;
            shared.seen.lock().unwrap()[number].sent.push(Instant::now());
            Bytes::from(format!("data: {{\"index\":{index},\"text\":\" é\",\"token_ids\":[{index}]}}\r\n\r\n"))
        }
    });
    let (prefill, decode) = (ttft.as_secs_f64() * 1e3, (gap * (tokens - 1)).as_secs_f64() * 1e3);
    let last = json!({
        "finish_reason": "length",
        "usage": {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens, "cached_tokens": 4},
        "timings": {
            "total_ms": prefill + decode, "ttft_ms": prefill, "tpot_ms": gap.as_secs_f64() * 1e3,
            "phases": {"receive_ms": 0.0, "prefill_ms": prefill, "decode_ms": decode},
        },
        "trace_id": trace_id,
    });
    let end = stream::iter([Bytes::from(format!("data: {last}\n\n")), Bytes::from("data: [DONE]\n\n")]);
    role.chain(text).chain(end).map(Ok).boxed()
}

/// The histogram as a gateway would have it, from the instants this server really answered at.
async fn metrics(State(shared): State<Arc<Shared>>) -> Result<String, Infallible> {
    let seen = shared.seen.lock().unwrap();
    let times: Vec<f64> =
        seen.iter().filter_map(|seen| Some(seen.sent.first()?.duration_since(seen.at).as_secs_f64())).collect();
    let mut text = String::new();
    let name = "gen_ai_server_time_to_first_token_seconds";
    writeln!(text, "{name}_sum{{model=\"mock\"}} {}", times.iter().sum::<f64>()).unwrap();
    writeln!(text, "{name}_count{{model=\"mock\"}} {}", times.len()).unwrap();
    Ok(text)
}
