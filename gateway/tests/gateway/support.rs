//! A gateway for one test, and clients that speak to it.

use std::{net::SocketAddr, path::Path, time::Duration};

use engine::synth::{Format, Preset, SynthOptions, write};
use gateway::{
    Config, RunError,
    config::{ByteSize, Seconds},
    telemetry::Telemetry,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway; dropping it stops it.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
    _model: TempDir,
}

impl TestGateway {
    /// A gateway that is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A gateway that is ready, configured by `change`.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let telemetry = Telemetry::init(&config.telemetry).unwrap();
        let running = tokio::spawn(gateway::run(config, telemetry, listener, stop.clone()));
        let gateway = Self { address, stop, running, _model: folder };
        gateway.until(async || gateway.get("/health/ready").await.status == 200).await;
        gateway
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        timeout(PATIENCE, &mut self.running).await.unwrap().unwrap().unwrap();
    }

    /// Sends raw bytes and reads to the end of the connection.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // A gateway that refuses early need not read it all.
        let _ = socket.write_all(request).await;
        read_answer(socket).await
    }

    /// `POST` of `body` as JSON.
    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.raw(&post_bytes(path, body.as_ref())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await
    }

    /// `POST /generate`.
    pub(crate) async fn generate(&self, body: Value) -> Answer {
        self.post("/generate", body.to_string()).await
    }

    /// A connection on which `body` was sent to `/generate` and nothing read yet.
    pub(crate) async fn open(&self, body: &Value) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(&post_bytes("/generate", body.to_string().as_bytes())).await.unwrap();
        socket
    }

    /// The sum of a metric's samples whose labels contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Requests that ended for `reason`.
    pub(crate) async fn finished(&self, reason: &str) -> f64 {
        self.metric("gateway_requests_finished_total", &format!("reason=\"{reason}\"")).await
    }

    /// Waits until no connection is taken any more.
    pub(crate) async fn until_closed(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_ok() {
            assert!(Instant::now() < deadline, "waited in vain");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Looks again and again until `holds`.
    pub(crate) async fn until(&self, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < deadline, "waited in vain");
            assert!(!self.running.is_finished(), "the gateway ended");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A small configuration for a model written to `folder`.
pub(crate) fn config(folder: &Path) -> Config {
    let path = folder.join("tiny.gguf");
    write(Preset::Tiny, Format::GgufF16, &path, SynthOptions::default()).unwrap();
    let mut config = Config::default();
    config.model.name = path.to_str().unwrap().to_owned();
    config.engine.kv_memory = Some(ByteSize(64 << 20));
    config.server.drain_timeout = Seconds::new(5);
    config
}

pub(crate) fn post_bytes(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A request that generates until it is stopped.
pub(crate) fn endless() -> Value {
    json!({"prompt": "on and on", "raw": true, "max_tokens": 30_000, "ignore_eos": true, "stream": true})
}

/// A whole HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The `data:` of each event, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = self.text();
        assert!(text.ends_with("\n\n"), "{text}");
        let data = |event: &str| event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
        text.split_terminator("\n\n").filter_map(data).collect()
    }
}

/// Reads a response to the end of its connection.
pub(crate) async fn read_answer(mut socket: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.unwrap().unwrap();
    parse_answer(&bytes)
}

fn parse_answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no response: {:?}", String::from_utf8_lossy(bytes));
    });
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &bytes[end + 4..];
    Answer { status, headers, body: if chunked { dechunk(body) } else { body.to_vec() } }
}

/// The content of a chunked body, which must be complete.
fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let line = body.windows(2).position(|window| window == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        body = &body[line + 2..];
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}
