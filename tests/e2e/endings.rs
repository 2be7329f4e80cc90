//! Endings that have to be arranged: a deadline, too many requests, a model that breaks down.

use serde_json::{Value, json};
use tests::{collector::Collector, gateway::Gateway, model, trace::Trace};

use crate::requests::{Caller, body};

/// The request ended in `phase` with this status and code; its trace is whole.
async fn ended(collector: &Collector, caller: &Caller, phase: &str, code: &str) -> anyhow::Result<Trace> {
    let trace = collector.trace(&caller.trace_id).await?;
    assert_eq!(trace.last_phase(), Some(phase));
    for span in [trace.server().unwrap(), trace.operation().unwrap()] {
        assert_eq!(span.attribute("error.type"), Some(code));
    }
    Ok(trace)
}

#[tokio::test]
async fn a_deadline_ends_a_request_amid_prefill_and_amid_decode() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    // One token a step: a long prompt takes longer than the deadline.
    let gateway = Gateway::traced(&collector.url())
        .flag("--max-step-tokens", 1)
        .flag("--request-timeout", "150ms")
        .start()
        .await?;
    let mut long = body(1);
    long["prompt"] = "why ".repeat(9_000).into();
    let prefilling = Caller::new(50);
    assert_eq!(prefilling.asks(gateway.generate(&long)).send().await?.status(), 504);
    ended(&collector, &prefilling, "prefill", "deadline_exceeded").await?;
    let decoding = Caller::new(52);
    assert_eq!(decoding.asks(gateway.generate(&body(30_000))).send().await?.status(), 504);
    ended(&collector, &decoding, "decode", "deadline_exceeded").await?;
    gateway.wait_for_metric("engine_kv_blocks{state=\"used\"}", 0.0).await
}

#[tokio::test]
async fn too_many_requests_have_their_traces() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = Gateway::traced(&collector.url()).flag("--requests-per-minute", 1).start().await?;
    assert_eq!(gateway.generate(&body(1)).send().await?.status(), 200);
    let caller = Caller::new(55);
    let refused = caller.asks(gateway.generate(&body(1))).send().await?;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    ended(&collector, &caller, "receive", "rate_limited").await?;
    Ok(())
}

#[tokio::test]
async fn a_model_that_breaks_down_fails_its_requests_and_says_so() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let folder = tempfile::tempdir()?;
    model::write_broken(folder.path())?;
    let launch = Gateway::traced(&collector.url()).flag("--kv-memory", "64MiB");
    let gateway = launch.model(folder.path().display()).variable("OTEL_BSP_SCHEDULE_DELAY", 20).start().await?;
    let caller = Caller::new(57);
    let response = caller.asks(gateway.generate(&body(4))).send().await?;
    assert_eq!(response.status(), 500);
    let error: Value = response.json().await?;
    assert_eq!((&error["error"]["code"], &error["error"]["type"]), (&json!("engine_failed"), &json!("server_error")));
    let trace = ended(&collector, &caller, "prefill", "engine_failed").await?;
    assert!(trace.server().unwrap().failed);
    gateway.wait_for_metric("gateway_requests_finished_total{reason=\"error\"}", 1.0).await
}
