//! What the telemetry of one request costs: CPU time per request, by part.
//!
//! ```sh
//! cargo bench --workspace --bench telemetry_cost
//! ```
//!
//! Requests are made up, with the facts and times of a whole answer; their spans go by gRPC to a collector in a
//! process of its own, whose time does not count. `export` is what all threads but the measuring one spend:
//! queueing aside, encoding and sending.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use engine::{Stamps, Usage};
use gateway::{
    config::{OtlpProtocol, TelemetryConfig},
    ledger::{Asked, Facts, Ledger, Outcome},
    telemetry::{ClosedRequest, RequestTrace, Telemetry},
};
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// Requests measured together: far more than a clock's resolution, few enough for the span queue.
const BATCH: usize = 1_000;
/// Batches.
const ROUNDS: usize = 100;
/// The argument by which this program is a collector.
const COLLECTOR: &str = "--be-the-collector";

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|argument| argument == COLLECTOR) {
        return collect();
    }
    let (mut collector, url) = start_collector()?;
    let exporting = TelemetryConfig {
        otlp_endpoint: Some(url),
        otlp_protocol: Some(OtlpProtocol::Grpc),
        ..TelemetryConfig::default()
    };
    let with = measure(&Telemetry::init(&exporting)?)?;
    let without = measure(&Telemetry::init(&TelemetryConfig::default())?)?;
    collector.kill()?;
    println!("CPU time per request, in microseconds, over {} requests", BATCH * ROUNDS);
    println!("  begin, with ids            {:6.2}", with.begin);
    println!("  spans: made and encoded    {:6.2}", with.finish - without.finish);
    println!("  spans: batched and sent    {:6.2}", with.export);
    println!("  traces together            {:6.2}", with.begin + with.finish - without.finish + with.export);
    println!("  metrics, always on         {:6.2}", without.finish);
    Ok(())
}

/// Microseconds per request.
struct Cost {
    begin: f64,
    finish: f64,
    export: f64,
}

fn measure(telemetry: &Telemetry) -> anyhow::Result<Cost> {
    let headers: HeaderMap =
        [("traceparent".parse()?, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?)]
            .into_iter()
            .collect();
    let facts = facts();
    // The first batch makes connections and warms caches.
    batch(telemetry, &headers, &facts);
    let started = (cpu(ClockId::ProcessCPUTime), cpu(ClockId::ThreadCPUTime));
    let (mut begin, mut finish) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let (began, finished) = batch(telemetry, &headers, &facts);
        begin += began;
        finish += finished;
    }
    let own = cpu(ClockId::ThreadCPUTime) - started.1;
    let others = cpu(ClockId::ProcessCPUTime) - started.0 - own;
    let counts = telemetry.shutdown(Duration::from_secs(10));
    anyhow::ensure!(counts.created == counts.exported, "spans were lost: {counts:?}");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (BATCH * ROUNDS) as f64;
    Ok(Cost { begin: each(begin), finish: each(finish), export: each(others) })
}

/// The time of the beginnings and of the ends of a batch of requests.
fn batch(telemetry: &Telemetry, headers: &HeaderMap, facts: &Facts) -> (Duration, Duration) {
    let ledgers: Vec<Ledger> = (0..BATCH).map(|_| ledger()).collect();
    let before = cpu(ClockId::ThreadCPUTime);
    let begin = |ledger| telemetry.begin("POST", "/generate", headers, ledger);
    let traces: Vec<RequestTrace> = ledgers.iter().map(begin).collect();
    let began = cpu(ClockId::ThreadCPUTime);
    for (trace, ledger) in traces.into_iter().zip(&ledgers) {
        telemetry.finish(trace, ClosedRequest { ledger, facts, outcome: Outcome::Stop });
    }
    let finished = cpu(ClockId::ThreadCPUTime);
    telemetry.flush();
    (began - before, finished - began)
}

fn ledger() -> Ledger {
    let ledger = Ledger::start();
    let at = |micros| Some(ledger.started + Duration::from_micros(micros));
    Ledger {
        received: at(50),
        tokenized: at(150),
        stamps: Stamps {
            queued: at(150),
            scheduled: at(900),
            first_token: at(2_100),
            last_token: at(84_000),
            usage: Usage { prompt_tokens: 43, completion_tokens: 53, cached_tokens: 0 },
            steps: 53,
            ..Stamps::default()
        },
        decoded: at(84_000),
        closed: at(84_100),
        ..ledger
    }
}

fn facts() -> Facts {
    Facts {
        response_id: Some("gen-3e0b66e522d54c619f6317e93e401282".to_owned()),
        request_id: "0b8f1f0e-5c0a-4a5e-9d8e-1f0f4c2f9a11".to_owned(),
        model: Some("demo".to_owned()),
        stream: Some(true),
        asked: Asked { stream: true, max_tokens: Some(64), temperature: Some(0.7), seed: Some(7), ..Asked::default() },
        queue_depth: Some(3),
        status: Some(200),
        bytes_sent: 4_000,
        ..Facts::default()
    }
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// This program again, as a collector; gives its URL.
fn start_collector() -> anyhow::Result<(Child, String)> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program).arg(COLLECTOR).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut url)?;
    Ok((child, url.trim().to_owned()))
}

/// Takes all spans and forgets them.
#[derive(Debug)]
struct Forgetful;

#[tonic::async_trait]
impl TraceService for Forgetful {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn collect() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(Forgetful).max_decoding_message_size(8 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    Ok(server.serve_with_incoming(TcpIncoming::from(listener)).await?)
}
