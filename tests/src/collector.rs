//! An OTLP collector on a free port: it keeps spans, and is slow, mute, unwilling or gone on demand.
//!
//! It has a thread of its own, so that it ends with all its connections, as a process does.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{
    PATIENCE,
    trace::{ReceivedSpan, Trace},
};

/// What the collector does with an export.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    /// Keeps the spans.
    Accept,
    /// Keeps them, after a while.
    AcceptAfter(Duration),
    /// Keeps all but this many, and says so.
    AcceptAllBut(usize),
    /// Refuses for now.
    Refuse,
    /// Never answers.
    Hang,
}

/// A running collector; it stops when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    protocol: Protocol,
    store: Store,
    /// `None` while it is stopped.
    server: Option<Runtime>,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Grpc,
    Http,
}

#[derive(Debug, Clone)]
struct Store {
    behaviour: Arc<watch::Sender<Behaviour>>,
    spans: Arc<watch::Sender<Vec<ReceivedSpan>>>,
}

impl Collector {
    /// Starts one that speaks gRPC.
    pub async fn grpc() -> anyhow::Result<Self> {
        Self::start(Protocol::Grpc)
    }

    /// Starts one that speaks protobuf over HTTP.
    pub async fn http() -> anyhow::Result<Self> {
        Self::start(Protocol::Http)
    }

    fn start(protocol: Protocol) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let store = Store {
            behaviour: Arc::new(watch::Sender::new(Behaviour::Accept)),
            spans: Arc::new(watch::Sender::new(Vec::new())),
        };
        let server = Some(serve(listener, protocol, store.clone())?);
        Ok(Self { address, protocol, store, server })
    }

    /// Stops listening and breaks off all connections. What it has of spans it keeps.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    /// Listens again, where it did before.
    pub async fn listen_again(&mut self) -> anyhow::Result<()> {
        self.stop();
        let listener = tokio::time::timeout(PATIENCE, async {
            loop {
                match std::net::TcpListener::bind(self.address) {
                    // What listened before is not gone yet.
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
                    bound => return bound,
                }
            }
        });
        self.server = Some(serve(listener.await??, self.protocol, self.store.clone())?);
        Ok(())
    }

    /// The base URL for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does so from now on. Exports that hang are let go.
    pub fn behave(&self, behaviour: Behaviour) {
        self.store.behaviour.send_replace(behaviour);
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.store.spans.borrow().clone()
    }

    /// Waits until `enough` holds of the spans; fails with what there is.
    pub async fn wait_for(&self, enough: impl Fn(&[ReceivedSpan]) -> bool) -> anyhow::Result<Vec<ReceivedSpan>> {
        let mut spans = self.store.spans.subscribe();
        let found = tokio::time::timeout(PATIENCE, spans.wait_for(|spans| enough(spans))).await;
        match found {
            Ok(found) => Ok(found?.clone()),
            Err(_) => anyhow::bail!("the spans never came; there are {:#?}", self.spans()),
        }
    }

    /// Waits for the whole trace of one request.
    pub async fn trace(&self, id: &str) -> anyhow::Result<Trace> {
        let spans = self.wait_for(|spans| Trace::of(id, spans).is_complete()).await;
        let spans = spans.map_err(|error| error.context(format!("trace {id}")))?;
        Ok(Trace::of(id, &spans))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves on a thread of its own. A failure to serve shows in that nothing comes.
fn serve(listener: std::net::TcpListener, protocol: Protocol, store: Store) -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    listener.set_nonblocking(true)?;
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(entered);
    runtime.spawn(async move {
        match protocol {
            Protocol::Grpc => {
                let service = TraceServiceServer::new(store).max_decoding_message_size(4 << 20);
                let server = tonic::transport::Server::builder().add_service(service);
                let _ = server.serve_with_incoming(TcpIncoming::from(listener)).await;
            }
            Protocol::Http => {
                let router = Router::new().route("/v1/traces", post(export)).with_state(store);
                let _ = axum::serve(listener, router.layer(axum::extract::DefaultBodyLimit::max(20 << 20))).await;
            }
        }
    });
    Ok(runtime)
}

impl Store {
    async fn take(&self, request: ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, Status> {
        let behaviour = *self.behaviour.borrow();
        let mut spans = ReceivedSpan::all(request);
        let mut rejected = 0;
        match behaviour {
            Behaviour::Accept => {}
            Behaviour::AcceptAfter(delay) => tokio::time::sleep(delay).await,
            Behaviour::AcceptAllBut(number) => {
                rejected = number.min(spans.len());
                spans.truncate(spans.len() - rejected);
            }
            Behaviour::Refuse => return Err(Status::unavailable("told to refuse")),
            Behaviour::Hang => {
                let mut changes = self.behaviour.subscribe();
                let _ = changes.wait_for(|now| !matches!(now, Behaviour::Hang)).await;
                return Err(Status::unavailable("told to hang"));
            }
        }
        self.spans.send_modify(|all| all.extend(spans));
        let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: rejected as i64,
            error_message: "told to reject".to_owned(),
        });
        Ok(ExportTraceServiceResponse { partial_success })
    }
}

#[tonic::async_trait]
impl TraceService for Store {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner()).await.map(Response::new)
    }
}

async fn export(State(store): State<Store>, body: Bytes) -> Result<Vec<u8>, axum::http::StatusCode> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| axum::http::StatusCode::BAD_REQUEST)?;
    let answer = store.take(request).await.map_err(|_| axum::http::StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(answer.encode_to_vec())
}
