//! A Hub that stands in for the real one: two routes on port 0, faults on demand, and a log of what was asked.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What goes wrong with one answer for a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The connection breaks after so many bytes of body.
    Break(usize),
    /// Everything is sent, whatever range was asked for.
    IgnoreRange,
    /// A range other than the one asked for.
    WrongRange,
    /// More than announced.
    Longer,
    /// A redirect to the same address, again and again.
    Loop,
    /// A status and its `x-error-code`.
    Status(u16, &'static str),
}

/// A file at the stand-in.
#[derive(Debug, Clone)]
pub(super) struct HubFile {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// What the listing announces; absent for a small file.
    pub(super) sha256: Option<String>,
    pub(super) size: u64,
}

/// One request for a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) file: String,
    pub(super) range: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) port: u16,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) files: Mutex<Vec<HubFile>>,
    pub(super) faults: Mutex<VecDeque<Fault>>,
    pub(super) listing_faults: Mutex<VecDeque<Fault>>,
    pub(super) asked: Mutex<Vec<Asked>>,
    /// Files are redirected there.
    pub(super) elsewhere: Mutex<Option<SocketAddr>>,
}

/// A running stand-in.
#[derive(Debug, Clone)]
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
}

#[derive(Clone)]
struct Server {
    shared: Arc<Shared>,
    port: u16,
}

pub(super) const COMMIT: &str = "0123456789abcdef";

impl HubFile {
    /// A large file, announced with its checksum.
    pub(super) fn large(name: &'static str, bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name, size: bytes.len() as u64, sha256: Some(sha256), bytes }
    }

    /// A small file, announced by its size only.
    pub(super) fn small(name: &'static str, bytes: &[u8]) -> Self {
        Self { name, size: bytes.len() as u64, sha256: None, bytes: bytes.to_vec() }
    }
}

impl StandIn {
    pub(super) async fn start(files: Vec<HubFile>) -> Self {
        let shared = Arc::new(Shared { files: Mutex::new(files), ..Shared::default() });
        Self::serve(shared).await
    }

    /// Another server for the same files.
    pub(super) async fn second_host(&self) -> Self {
        Self::serve(self.shared.clone()).await
    }

    async fn serve(shared: Arc<Shared>) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/models/{owner}/{name}/revision/main", get(listing))
            .route("/{owner}/{name}/resolve/{commit}/{file}", get(resolve))
            .route("/blobs/{file}", get(blob))
            .with_state(Server { shared: shared.clone(), port: address.port() });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The ranges asked for of one file, in order.
    pub(super) fn ranges(&self, file: &str) -> Vec<Option<String>> {
        self.asked().into_iter().filter(|asked| asked.file == file).map(|asked| asked.range).collect()
    }
}

async fn listing(State(server): State<Server>, Path((owner, _)): Path<(String, String)>) -> Response {
    if owner == "nobody" {
        return (StatusCode::UNAUTHORIZED, [("x-error-code", "RepoNotFound")]).into_response();
    }
    if let Some(Fault::Status(status, code)) = server.shared.listing_faults.lock().unwrap().pop_front() {
        return (StatusCode::from_u16(status).unwrap(), [("x-error-code", code)]).into_response();
    }
    let files = server.shared.files.lock().unwrap().clone();
    let siblings: Vec<Value> = files
        .iter()
        .map(|file| match &file.sha256 {
            Some(sha256) => json!({"rfilename": file.name, "size": file.size, "blobId": "x",
                "lfs": {"sha256": sha256, "size": file.size, "pointerSize": 135}}),
            None => json!({"rfilename": file.name, "size": file.size, "blobId": "x"}),
        })
        .collect();
    Json(json!({"id": "owner/model", "sha": COMMIT, "gated": false, "siblings": siblings})).into_response()
}

async fn resolve(
    State(server): State<Server>,
    Path((_, _, commit, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    assert_eq!(commit, COMMIT);
    let elsewhere = *server.shared.elsewhere.lock().unwrap();
    if let Some(address) = elsewhere {
        log(&server, &file, &headers);
        return (StatusCode::FOUND, [(header::LOCATION, format!("http://{address}/blobs/{file}"))]).into_response();
    }
    blob(State(server), Path(file), headers).await
}

fn log(server: &Server, file: &str, headers: &HeaderMap) {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap().to_owned());
    let asked = Asked {
        file: file.to_owned(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
        port: server.port,
    };
    server.shared.asked.lock().unwrap().push(asked);
}

async fn blob(State(server): State<Server>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    log(&server, &name, &headers);
    let fault = server.shared.faults.lock().unwrap().pop_front();
    if let Some(Fault::Status(status, code)) = fault {
        return (StatusCode::from_u16(status).unwrap(), [("x-error-code", code)]).into_response();
    }
    if let Some(Fault::Loop) = fault {
        server.shared.faults.lock().unwrap().push_back(Fault::Loop);
        return (StatusCode::FOUND, [(header::LOCATION, format!("/blobs/{name}"))]).into_response();
    }
    let file = server.shared.files.lock().unwrap().iter().find(|file| file.name == name).cloned();
    let Some(mut file) = file else { return StatusCode::NOT_FOUND.into_response() };
    let total = file.bytes.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = from.filter(|_| !matches!(fault, Some(Fault::IgnoreRange)));
    if from.is_some_and(|from| from >= total) {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let body = file.bytes.split_off(from.unwrap_or(0));
    let mut response = Response::new(broken(body, fault));
    let said = if let Some(Fault::WrongRange) = fault { from.map(|from| from - 1) } else { from };
    if let Some(from) = said {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{total}", total - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    response
}

/// The body, whole or broken off.
fn broken(mut body: Vec<u8>, fault: Option<Fault>) -> Body {
    match fault {
        Some(Fault::Break(after)) => {
            body.truncate(after);
            let end = stream::once(async {
                // Lets the server write out what it has before the connection ends.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                Err(io::Error::other("the stand-in breaks off"))
            });
            Body::from_stream(stream::iter([Ok(Bytes::from(body))]).chain(end))
        }
        Some(Fault::Longer) => {
            body.extend([0; 100]);
            Body::from(body)
        }
        _ => Body::from(body),
    }
}
