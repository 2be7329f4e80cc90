//! What a collector does costs no request anything, and every span is accounted for.

use std::time::Duration;

use serde_json::Value;
use tests::{
    collector::{Behaviour, Collector},
    gateway::Gateway,
};

use crate::requests::body;

const SPANS_PER_REQUEST: f64 = 8.0;

async fn ask(gateway: &Gateway, times: usize) -> anyhow::Result<Vec<String>> {
    let mut traces = Vec::new();
    for _ in 0..times {
        let answer: Value = gateway.generate(&body(2)).send().await?.json().await?;
        traces.push(answer["trace_id"].as_str().unwrap_or_default().to_owned());
    }
    Ok(traces)
}

async fn spans(gateway: &Gateway, outcome: &str, number: f64) -> anyhow::Result<()> {
    gateway.wait_for_metric(&format!("gateway_telemetry_spans_total{{outcome=\"{outcome}\"}}"), number).await
}

#[tokio::test]
async fn spans_travel_over_http_too() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = Gateway::traced(&collector.url()).start().await?;
    for trace in ask(&gateway, 3).await? {
        assert!(collector.trace(&trace).await?.is_complete());
    }
    spans(&gateway, "exported", 3.0 * SPANS_PER_REQUEST).await?;
    Ok(())
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_requests_nor_the_end() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    collector.behave(Behaviour::Hang);
    let gateway = Gateway::traced(&collector.url())
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .variable("OTEL_BSP_EXPORT_TIMEOUT", "300")
        .start()
        .await?;
    ask(&gateway, 20).await?;
    spans(&gateway, "failed", 20.0 * SPANS_PER_REQUEST).await?;
    spans(&gateway, "created", 20.0 * SPANS_PER_REQUEST).await?;
    assert!(collector.spans().is_empty());
    assert_eq!(gateway.stop().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn spans_outlast_a_collector_that_refuses_for_a_while() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    collector.behave(Behaviour::Refuse);
    let gateway = Gateway::traced(&collector.url()).start().await?;
    let traces = ask(&gateway, 5).await?;
    collector.behave(Behaviour::AcceptAfter(Duration::from_millis(50)));
    for trace in traces {
        collector.trace(&trace).await?;
    }
    spans(&gateway, "exported", 5.0 * SPANS_PER_REQUEST).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_collector_rejects_has_failed_and_is_not_sent_again() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    collector.behave(Behaviour::AcceptAllBut(1));
    let gateway = Gateway::traced(&collector.url()).variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").start().await?;
    ask(&gateway, 1).await?;
    let counted = async |outcome: &str| {
        let series = format!("gateway_telemetry_spans_total{{outcome=\"{outcome}\"}}");
        anyhow::Ok(gateway.metric(&series).await?.unwrap_or_default())
    };
    let settled = async {
        loop {
            let (exported, failed) = (counted("exported").await?, counted("failed").await?);
            if exported + failed == SPANS_PER_REQUEST {
                return anyhow::Ok((exported, failed));
            }
        }
    };
    let (exported, failed) = tokio::time::timeout(Duration::from_secs(60), settled).await??;
    assert_eq!(exported, collector.spans().len() as f64);
    assert!(failed > 0.0);
    Ok(())
}

#[tokio::test]
async fn the_last_spans_are_sent_when_the_gateway_is_stopped() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    let gateway = Gateway::traced(&collector.url()).variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").start().await?;
    let traces = ask(&gateway, 10).await?;
    assert_eq!(gateway.stop().await?, Some(0));
    let spans = collector.spans();
    assert_eq!(spans.len() as f64, traces.len() as f64 * SPANS_PER_REQUEST);
    Ok(())
}

#[tokio::test]
async fn without_an_endpoint_there_are_ids_and_metrics_but_no_spans() -> anyhow::Result<()> {
    let gateway = tests::gateway::Launch::default().start().await?;
    let traces = ask(&gateway, 2).await?;
    assert!(traces.iter().all(|id| id.len() == 32 && id.bytes().any(|byte| byte != b'0')));
    spans(&gateway, "created", 0.0).await?;
    gateway.wait_for_metric("gateway_requests_finished_total{reason=\"length\"}", 2.0).await?;
    Ok(())
}
