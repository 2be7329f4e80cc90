//! Engine steps as a collector and a scrape see them.

use serde_json::Value;
use tests::{
    collector::Collector,
    gateway::{Gateway, Launch},
    trace::{ReceivedSpan, Trace},
};

use crate::requests::{Caller, body};

/// A gateway that makes spans of as many steps as it can.
fn stepping(collector: &Collector) -> Launch {
    Gateway::traced(&collector.url()).variable("GATEWAY_STEP_SPANS_PER_SECOND", 1e6)
}

/// All spans of steps, once `trace` is whole and as many as `enough` are there.
async fn steps_of(collector: &Collector, trace: &str, enough: usize) -> anyhow::Result<(Trace, Vec<ReceivedSpan>)> {
    let trace = collector.trace(trace).await?;
    let is_step = |span: &&ReceivedSpan| span.name == "engine.step";
    let spans = collector.wait_for(|spans| spans.iter().filter(is_step).count() >= enough).await?;
    Ok((trace, spans.iter().filter(is_step).cloned().collect()))
}

#[tokio::test]
async fn steps_and_requests_link_each_other() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = stepping(&collector).start().await?;
    let answer: Value = gateway.generate(&body(8)).send().await?.json().await?;
    let (trace, steps) = steps_of(&collector, answer["trace_id"].as_str().unwrap(), 8).await?;
    let server = trace.server().unwrap();
    assert_eq!(steps.len(), 8, "a step per token");
    for step in &steps {
        assert_eq!(step.service, "llm-inference-engine");
        assert!(step.parent.is_empty() && step.trace_id != server.trace_id, "a trace of its own");
        assert!(step.links_to(server) && step.links.len() == 1);
        assert_eq!(step.attribute("engine.step.batch_size"), Some("1"));
        for share in ["engine.kv.usage", "engine.memory_bandwidth.utilization", "engine.compute.utilization"] {
            let share: f64 = step.attribute(share).unwrap().parse()?;
            assert!(share > 0.0 && share.is_finite());
        }
    }
    let of = |step: &ReceivedSpan, name: &str| step.attribute(name).unwrap().parse::<f64>();
    let (prefill, decode) = (trace.phase("prefill").unwrap(), trace.phase("decode").unwrap());
    for step in &steps {
        let phase = if of(step, "engine.step.prefill_tokens")? > 0.0 { prefill } else { decode };
        assert!(phase.links_to(step), "{step:?}");
        let parts = ["plan", "forward", "sample", "send"].map(|part| of(step, &format!("engine.step.{part}_ms")));
        let sum: f64 = parts.into_iter().sum::<Result<f64, _>>()?;
        assert!((sum - step.nanos() as f64 / 1e6).abs() < 1e-3, "{step:?}");
    }
    assert_eq!((prefill.links.len(), decode.links.len()), (1, 7));
    assert!(
        trace.spans.iter().all(|span| ["prefill", "decode"].contains(&span.name.as_str()) || span.links.is_empty())
    );
    Ok(())
}

#[tokio::test]
async fn a_long_answer_links_some_of_its_steps() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = stepping(&collector).start().await?;
    let answer: Value = gateway.generate(&body(300)).send().await?.json().await?;
    let (trace, steps) = steps_of(&collector, answer["trace_id"].as_str().unwrap(), 300).await?;
    let links = trace.phase("decode").unwrap().links.len();
    assert!((16..=32).contains(&links), "{links}");
    assert!(steps.iter().all(|step| step.links_to(trace.server().unwrap())));
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_not_sampled_is_not_linked() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = stepping(&collector).start().await?;
    let silent = Caller { sampled: false, ..Caller::new(70) };
    silent.asks(gateway.generate(&body(3))).send().await?.bytes().await?;
    let spans = collector.wait_for(|spans| spans.len() >= 3).await?;
    assert!(spans.iter().all(|span| span.name == "engine.step" && span.links.is_empty()));
    Ok(())
}

#[tokio::test]
async fn a_scrape_says_how_near_the_engine_is_to_its_limits() -> anyhow::Result<()> {
    let gateway = Launch::default().flag("--max-batch", 3).flag("--max-step-tokens", 32).start().await?;
    gateway.generate(&body(20)).send().await?.bytes().await?;
    gateway.wait_for_metric("engine_step_duration_seconds_count", 20.0).await?;
    for (series, expected) in [
        ("engine_batch_limit", 3.0),
        ("engine_step_token_limit", 32.0),
        ("engine_step_tokens_sum{kind=\"decode\"}", 19.0),
        ("engine_step_tokens_count{kind=\"prefill\"}", 20.0),
        ("engine_step_part_duration_seconds_count{part=\"sample\"}", 20.0),
        ("engine_kv_memory_bytes{state=\"used\"}", 0.0),
    ] {
        assert_eq!(gateway.metric(series).await?, Some(expected), "{series}");
    }
    for series in [
        "engine_memory_bandwidth_limit_bytes_per_second",
        "engine_compute_limit_per_second",
        "engine_memory_bandwidth_utilization_ratio",
        "engine_compute_utilization_ratio",
        "engine_step_memory_bytes_total",
        "engine_step_operations_total",
        "engine_model_memory_bytes",
        "engine_kv_memory_bytes{state=\"free\"}",
        "process_memory_usage_bytes",
    ] {
        let value = gateway.metric(series).await?.unwrap_or_default();
        assert!(value > 0.0 && value.is_finite(), "{series} {value}");
    }
    Ok(())
}
