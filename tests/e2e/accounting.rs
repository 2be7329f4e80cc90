//! Thousands of requests, and a collector that does what collectors do: every span is accounted for.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::Context;
use tests::{
    collector::{Behaviour, Collector},
    flood::{Answers, Flood},
    gateway::{Gateway, Launch},
    trace::{ReceivedSpan, Trace},
};

const REQUESTS: usize = 10_000;

/// What the gateway says became of its spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    created: u64,
    exported: u64,
    dropped: u64,
    failed: u64,
}

impl Counts {
    /// From `/metrics`, once all spans of `answers` are there and none of them waits any more.
    async fn settled(gateway: &Gateway, answers: Answers) -> anyhow::Result<Self> {
        let created = spans_of(answers);
        gateway.wait_for_metric(r#"gateway_telemetry_spans_total{outcome="created"}"#, created as f64).await?;
        gateway.wait_for_metric("gateway_telemetry_queue", 0.0).await?;
        let series = [
            r#"gateway_telemetry_spans_total{outcome="created"}"#,
            r#"gateway_telemetry_spans_total{outcome="exported"}"#,
            r#"gateway_telemetry_spans_total{outcome="dropped"}"#,
            r#"gateway_telemetry_spans_total{outcome="failed"}"#,
        ];
        let [created, exported, dropped, failed] =
            gateway.metrics(series).await?.map(|value| value.unwrap_or(f64::NAN) as u64);
        let counts = Self { created, exported, dropped, failed };
        counts.check();
        assert_eq!(gateway.metric("gateway_telemetry_queue_memory_bytes").await?, Some(0.0));
        Ok(counts)
    }

    /// From the last line of the log that says so.
    async fn at_the_end(gateway: Gateway) -> anyhow::Result<Self> {
        let (code, log) = gateway.stop_and_read().await?;
        assert_eq!(code, Some(0));
        let mut lines = log.iter().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let line = lines.find(|line| line["message"] == "spans are accounted for").context("no last line")?;
        let count = |name: &str| line[name].as_u64().with_context(|| format!("{name} in {line}"));
        let counts = Self {
            created: count("created")?,
            exported: count("exported")?,
            dropped: count("dropped")?,
            failed: count("failed")?,
        };
        counts.check();
        Ok(counts)
    }

    fn check(self) {
        assert_eq!(self.created, self.exported + self.dropped + self.failed, "{self:?}");
    }
}

/// Of a refusal there are the server's span, the operation's and one phase; of an answer all phases.
fn spans_of(answers: Answers) -> u64 {
    (8 * answers.answered + 3 * answers.refused) as u64
}

fn distinct(spans: &[ReceivedSpan]) -> u64 {
    spans.iter().map(|span| (&span.trace_id, &span.id)).collect::<HashSet<_>>().len() as u64
}

/// Every trace is whole, and every span's parent is there.
fn check_traces(spans: Vec<ReceivedSpan>, requests: usize) {
    let ids: HashSet<_> = spans.iter().map(|span| (span.trace_id.clone(), span.id.clone())).collect();
    let is_there = |span: &ReceivedSpan| ids.contains(&(span.trace_id.clone(), span.parent.clone()));
    let orphan = spans.iter().find(|span| !span.parent.is_empty() && !is_there(span));
    assert!(orphan.is_none(), "{orphan:?}");
    let mut traces = HashMap::<_, Vec<_>>::new();
    for span in spans {
        traces.entry(span.trace_id.clone()).or_default().push(span);
    }
    assert_eq!(traces.len(), requests);
    for spans in traces.into_values() {
        let trace = Trace { spans };
        assert!(trace.is_complete(), "{trace:#?}");
    }
}

async fn flooded(launch: Launch, requests: usize) -> anyhow::Result<(Gateway, Answers)> {
    let gateway = launch.start().await?;
    let answers = Flood::start(gateway.url(), requests).end().await;
    assert_eq!(answers.all(), requests);
    assert!(answers.answered > 0 && answers.refused > answers.answered, "{answers:?}");
    Ok((gateway, answers))
}

fn over_grpc(collector: &Collector) -> Launch {
    Gateway::traced(&collector.url()).variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
}

/// A collector that takes everything gets everything, and the last words are the same as those before.
async fn loses_nothing(launch: Launch, collector: &Collector) -> anyhow::Result<()> {
    let (gateway, answers) = flooded(launch, REQUESTS).await?;
    let counts = Counts::settled(&gateway, answers).await?;
    assert_eq!(counts.exported, counts.created, "{counts:?}");
    assert_eq!(Counts::at_the_end(gateway).await?, counts);
    assert_eq!(collector.spans().len() as u64, counts.exported);
    check_traces(collector.spans(), REQUESTS);
    Ok(())
}

#[tokio::test]
async fn a_healthy_collector_gets_every_trace_whole() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    loses_nothing(over_grpc(&collector), &collector).await
}

#[tokio::test]
async fn a_collector_that_takes_50_ms_gets_every_trace_whole() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    collector.behave(Behaviour::AcceptAfter(Duration::from_millis(50)));
    loses_nothing(Gateway::traced(&collector.url()), &collector).await
}

#[tokio::test]
async fn a_collector_that_takes_2_s_gets_every_trace_whole() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    collector.behave(Behaviour::AcceptAfter(Duration::from_secs(2)));
    loses_nothing(over_grpc(&collector), &collector).await
}

#[tokio::test]
async fn a_restart_of_the_collector_loses_nothing() -> anyhow::Result<()> {
    let mut collector = Collector::grpc().await?;
    let gateway = over_grpc(&collector).start().await?;
    let mut flood = Flood::start(gateway.url(), REQUESTS);
    flood.reached(3_000).await?;
    collector.stop();
    flood.reached(4_000).await?;
    collector.listen_again().await?;
    let counts = Counts::settled(&gateway, flood.end().await).await?;
    assert_eq!(counts.exported, counts.created, "{counts:?}");
    // What was under way when it went may have come twice: the answer was lost, not the spans.
    assert_eq!(distinct(&collector.spans()), counts.exported);
    Ok(())
}

#[tokio::test]
async fn what_a_collector_refuses_has_failed() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    collector.behave(Behaviour::Refuse);
    let launch = Gateway::traced(&collector.url()).variable("OTEL_BSP_EXPORT_TIMEOUT", "300");
    let (gateway, answers) = flooded(launch, REQUESTS).await?;
    let counts = Counts::settled(&gateway, answers).await?;
    assert_eq!((counts.exported, counts.dropped), (0, 0), "{counts:?}");
    assert!(collector.spans().is_empty());
    Ok(())
}

#[tokio::test]
async fn what_a_collector_rejects_of_each_batch_has_failed() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    collector.behave(Behaviour::AcceptAllBut(7));
    let (gateway, answers) = flooded(over_grpc(&collector), REQUESTS).await?;
    let counts = Counts::settled(&gateway, answers).await?;
    assert!(counts.failed >= 7 && counts.dropped == 0, "{counts:?}");
    assert_eq!(collector.spans().len() as u64, counts.exported);
    Ok(())
}

#[tokio::test]
async fn a_collector_that_hangs_fills_no_more_than_the_queue() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    collector.behave(Behaviour::Hang);
    let launch = over_grpc(&collector).variable("OTEL_BSP_MAX_QUEUE_SIZE", 1_000);
    let gateway = launch.variable("OTEL_BSP_EXPORT_TIMEOUT", 5_000).start().await?;
    let mut flood = Flood::start(gateway.url(), REQUESTS);
    for requests in [2_000, 5_000, 9_000] {
        flood.reached(requests).await?;
        let held = gateway.metric("gateway_telemetry_queue").await?;
        assert!(held.is_some_and(|held| held <= 1_000.0), "{held:?}");
    }
    let counts = Counts::settled(&gateway, flood.end().await).await?;
    assert!(counts.exported == 0 && counts.failed > 0 && counts.dropped > counts.failed, "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_stop_under_load_sends_the_spans_of_all_requests_there_were() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    let gateway = over_grpc(&collector).start().await?;
    let mut flood = Flood::start(gateway.url(), 10 * REQUESTS);
    flood.reached(3_000).await?;
    let counts = Counts::at_the_end(gateway).await?;
    let answers = flood.end().await;
    assert!(counts.created >= spans_of(answers), "{counts:?} {answers:?}");
    assert_eq!(counts.exported, counts.created, "{counts:?}");
    assert_eq!(collector.spans().len() as u64, counts.exported);
    Ok(())
}

#[tokio::test]
async fn a_stop_under_load_is_not_held_up_by_a_collector_that_hangs() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    collector.behave(Behaviour::Hang);
    let gateway = Gateway::traced(&collector.url()).start().await?;
    let mut flood = Flood::start(gateway.url(), 10 * REQUESTS);
    flood.reached(3_000).await?;
    let counts = Counts::at_the_end(gateway).await?;
    assert!(counts.exported == 0 && counts.created >= spans_of(flood.end().await), "{counts:?}");
    Ok(())
}
