//! Spans to a collector by OTLP, over gRPC or HTTP.
//!
//! A collector may take a part of what it is sent (OTLP's partial success); how much it rejected is what
//! [`SendSpans::send`] gives, so that no span counts as exported that is not there.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::{
    tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
    },
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{Resource, trace::SpanData};
use prost::Message;
use tonic::{
    Code, Request, Status,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::{settings::Traces, setup::TelemetryError};
use crate::config::OtlpProtocol;

/// Waits between two tries grow from the first to the last: patient enough to outlast a collector's restart.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(800));

/// The most of a collector's answer that is read.
const ANSWER_BYTES: usize = 64 << 10;

/// Where spans are sent. Whoever calls it bounds the time.
pub(super) trait SendSpans: Send + Sync {
    /// Sends `spans` until they are taken or refused for good; gives how many of them were rejected.
    fn send(&self, spans: Vec<SpanData>) -> impl Future<Output = Result<u64, String>> + Send;
}

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    resource: ResourceAttributesWithSchema,
    transport: Transport,
    try_timeout: Duration,
}

#[derive(Debug)]
enum Transport {
    Grpc { client: TraceServiceClient<Channel>, metadata: MetadataMap },
    Http { client: reqwest::Client, url: String, headers: HeaderMap },
}

/// One try that did not succeed.
struct Refusal {
    reason: String,
    again: Again,
}

#[derive(Debug, Clone, Copy)]
enum Again {
    Never,
    Later,
    After(Duration),
}

impl Collector {
    /// A collector that is connected to when there is something to send. Call it where its tasks are to run.
    pub(super) fn new(traces: &Traces, resource: &Resource) -> Result<Self, TelemetryError> {
        let url = traces.target.url.clone();
        let transport = match traces.target.protocol {
            OtlpProtocol::Grpc => {
                let refused = |reason: String| TelemetryError::Endpoint { url: url.clone(), reason };
                let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| refused(error.to_string()))?;
                if endpoint.uri().scheme_str() != Some("http") {
                    return Err(refused("gRPC is spoken without TLS only: use http://, or OTLP over HTTP".to_owned()));
                }
                let client = TraceServiceClient::new(endpoint.connect_lazy());
                Transport::Grpc { client, metadata: MetadataMap::from_headers(traces.headers.clone()) }
            }
            OtlpProtocol::HttpProtobuf => {
                Transport::Http { client: reqwest::Client::builder().build()?, url, headers: traces.headers.clone() }
            }
        };
        Ok(Self { resource: resource.into(), transport, try_timeout: traces.try_timeout })
    }

    /// `spans`, as this collector takes them.
    fn export(&self, spans: Vec<SpanData>) -> Export<'_> {
        let message =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &self.resource) };
        match &self.transport {
            Transport::Grpc { client, metadata } => Export::Grpc { client, metadata, message },
            Transport::Http { client, url, headers } => {
                Export::Http { client, url, headers, body: message.encode_to_vec().into() }
            }
        }
    }
}

/// One export, which may be tried more than once.
enum Export<'a> {
    Grpc { client: &'a TraceServiceClient<Channel>, metadata: &'a MetadataMap, message: ExportTraceServiceRequest },
    Http { client: &'a reqwest::Client, url: &'a str, headers: &'a HeaderMap, body: Bytes },
}

impl Export<'_> {
    /// Gives how many spans were rejected.
    async fn try_once(&self, limit: Duration) -> Result<u64, Refusal> {
        let answer = match self {
            Self::Grpc { client, metadata, message } => {
                let mut request = Request::new(message.clone());
                *request.metadata_mut() = (*metadata).clone();
                request.set_timeout(limit);
                let mut client = (*client).clone();
                client.export(request).await?.into_inner()
            }
            Self::Http { client, url, headers, body } => {
                let request = client.post(*url).headers((*headers).clone()).timeout(limit);
                let request = request.header(header::CONTENT_TYPE, "application/x-protobuf").body(body.clone());
                match request.send().await {
                    Ok(response) => read(response).await?,
                    Err(error) => return Err(Refusal { reason: error.without_url().to_string(), again: Again::Later }),
                }
            }
        };
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

impl SendSpans for Collector {
    async fn send(&self, spans: Vec<SpanData>) -> Result<u64, String> {
        let export = self.export(spans);
        let mut wait = BACK_OFF.0;
        loop {
            let refusal = match export.try_once(self.try_timeout).await {
                Ok(rejected) => return Ok(rejected),
                Err(refusal) => refusal,
            };
            let pause = match refusal.again {
                Again::Never => return Err(refusal.reason),
                Again::Later => wait,
                Again::After(pause) => pause,
            };
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }
}

/// What a collector answered over HTTP.
async fn read(mut response: reqwest::Response) -> Result<ExportTraceServiceResponse, Refusal> {
    let status = response.status();
    let mut body = Vec::new();
    // An answer that breaks off is judged by its status.
    while let Ok(Some(bytes)) = response.chunk().await {
        if body.len() + bytes.len() > ANSWER_BYTES {
            break;
        }
        body.extend_from_slice(&bytes);
    }
    if status.is_success() {
        // Collectors may answer with an empty body, or in words.
        return Ok(ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default());
    }
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let again = match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            after.map_or(Again::Later, |seconds| Again::After(Duration::from_secs(seconds)))
        }
        _ => Again::Never,
    };
    Err(Refusal { reason: format!("the collector answers {status}"), again })
}

impl From<Status> for Refusal {
    /// What OTLP says of each code.
    fn from(status: Status) -> Self {
        let again = match status.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Again::Later,
            _ => Again::Never,
        };
        Self { reason: format!("{:?}: {}", status.code(), status.message()), again }
    }
}
