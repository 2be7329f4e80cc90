//! Each bottleneck, provoked by what causes it and by nothing else, is named, with the figures that show it.
//!
//! What dominates does so by construction, several times over, whatever the machine's pace.

use std::time::Duration;

use serde_json::Value;
use tests::{
    fake::{Fake, Pace, Sample},
    gateway::Launch,
    load::{Load, Run},
    proxy::{Line, Proxy},
};

#[tokio::test(flavor = "multi_thread")]
async fn more_users_than_places_are_queue_bound() -> anyhow::Result<()> {
    let gateway = Launch::default().flag("--max-batch", 1).start().await?;
    let run = Load::of(12).flag("--max-tokens", 3000).run(gateway.url()).await?;
    named(&run, "queue", &["Little's law", "of the 1 there are"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_answers_than_the_cache_holds_are_kv_bound() -> anyhow::Result<()> {
    // Room for 1024 tokens: two or three of the twelve answers.
    let gateway = Launch::default().flag("--kv-memory", "512KiB").flag("--max-context", 1000).start().await?;
    let run = Load::of(12).flag("--max-tokens", 400).flag("--run-time", "4s").run(gateway.url()).await?;
    named(&run, "kv", &["KV"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn long_prompts_with_short_answers_are_prefill_bound() -> anyhow::Result<()> {
    // Each prompt waits for those before it; with the cache only the first would be computed.
    let gateway = Launch::default().flag("--max-step-tokens", 1).flag("--prefix-cache", false).start().await?;
    let run = Load::of(6).flag("--prompt-words", 9000).flag("--max-tokens", 2).run(gateway.url()).await?;
    named(&run, "prefill", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beside_long_prompts_suffer_interference() -> anyhow::Result<()> {
    // Each step of the stream computes all of somebody's prompt.
    let gateway = Launch::default().flag("--max-step-tokens", 16_384).start().await?;
    let prompts = Load::of(4).flag("--prompt-words", 4000).flag("--max-tokens", 1).flag("--run-time", "6s");
    let streams = Load::of(1).flag("--max-tokens", 10);
    let (beside, run) = tokio::join!(prompts.run(gateway.url()), streams.run(gateway.url()));
    beside?;
    named(&run?, "interference", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_named() -> anyhow::Result<()> {
    let gateway = Launch::default().start().await?;
    let proxy = Proxy::start(gateway.url(), Line::Paused(Duration::from_secs(12))).await?;
    let run = Load::of(1).flag("--max-tokens", 25_000).run(&proxy.url()).await?;
    named(&run, "client", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_is_named() -> anyhow::Result<()> {
    let gateway = Launch::default().start().await?;
    let proxy = Proxy::start(gateway.url(), Line::Long(Duration::from_millis(400))).await?;
    let run = Load::of(1).flag("--max-tokens", 4).run(&proxy.url()).await?;
    named(&run, "network", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_overloaded() -> anyhow::Result<()> {
    let gateway = Launch::default().flag("--max-batch", 1).flag("--max-queue", 1).start().await?;
    let run = Load::of(12).flag("--max-tokens", 1500).run(gateway.url()).await?;
    named(&run, "overload", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_wrong_nothing_is_named() -> anyhow::Result<()> {
    let gateway = Launch::default().start().await?;
    let run = Load::of(1).flag("--max-tokens", 200).run(gateway.url()).await?;
    named(&run, "healthy", &["TTFT", "TPOT"]).await
}

/// What a gateway publishes of an engine that computes one sequence at a time in steps of `step`, of which its
/// memory's limit would take `share`.
fn engine(pace: Pace, step: Duration, share: f64) -> Vec<Sample> {
    let steps = f64::from(pace.tokens);
    let seconds = steps * step.as_secs_f64();
    vec![
        Sample::Constant("engine_batch_limit", 64.0),
        Sample::Constant("engine_step_token_limit", 128.0),
        Sample::Constant("engine_memory_bandwidth_limit_bytes_per_second", 1e10),
        Sample::Constant("engine_compute_limit_per_second", 1e12),
        Sample::Constant("engine_kv_usage_ratio", 0.01),
        Sample::Constant("engine_sequences{state=\"running\"}", 1.0),
        Sample::Constant("engine_sequences{state=\"waiting\"}", 0.0),
        Sample::PerRequest("engine_batch_size_sum", steps),
        Sample::PerRequest("engine_batch_size_count", steps),
        Sample::PerRequest("engine_step_duration_seconds_sum", seconds),
        Sample::PerRequest("engine_step_duration_seconds_count", steps),
        Sample::PerRequest("engine_step_part_duration_seconds_sum{part=\"plan\"}", 0.01 * seconds),
        Sample::PerRequest("engine_step_part_duration_seconds_sum{part=\"forward\"}", 0.95 * seconds),
        Sample::PerRequest("engine_step_part_duration_seconds_sum{part=\"sample\"}", 0.03 * seconds),
        Sample::PerRequest("engine_step_memory_bytes_total", share * 1e10 * 0.95 * seconds),
        Sample::PerRequest("engine_step_operations_total", 0.05 * 1e12 * 0.95 * seconds),
        Sample::PerRequest("engine_step_tokens_sum{kind=\"prefill\"}", 100.0),
        Sample::PerRequest("engine_step_tokens_sum{kind=\"decode\"}", steps),
    ]
}

/// Tokens that come slower than people read.
const SLOW: Pace = Pace {
    tokenize: Duration::from_millis(1),
    prefill: Duration::from_millis(50),
    per_token: Duration::from_millis(150),
    tokens: 8,
};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_as_fast_as_the_memory_allows_are_bound_by_it() -> anyhow::Result<()> {
    let server = Fake::start(SLOW, engine(SLOW, SLOW.per_token, 0.85)).await?;
    let run = Load::of(1).run(&server.url()).await?;
    named(&run, "decode_bandwidth", &["85"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_tokens_far_below_the_memorys_limit_are_overhead() -> anyhow::Result<()> {
    let server = Fake::start(SLOW, engine(SLOW, SLOW.per_token, 0.05)).await?;
    let run = Load::of(1).run(&server.url()).await?;
    named(&run, "decode_overhead", &["5"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_encoding_of_prompts_is_named() -> anyhow::Result<()> {
    let pace = Pace {
        tokenize: Duration::from_secs(2),
        prefill: Duration::from_millis(20),
        per_token: Duration::from_millis(5),
        tokens: 4,
    };
    let server = Fake::start(pace, engine(pace, pace.per_token, 0.3)).await?;
    let run = Load::of(1).run(&server.url()).await?;
    named(&run, "tokenize", &[]).await
}

/// The analysis names the bottleneck `id`, and its evidence cites these.
async fn named(run: &Run, id: &str, cited: &[&str]) -> anyhow::Result<()> {
    let analysis = run.analysis().await?;
    let bottleneck = &analysis["bottleneck"];
    assert_eq!(bottleneck["id"], id, "{bottleneck:#}");
    let evidence: Vec<&str> = bottleneck["evidence"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let evidence = evidence.join(" ");
    for part in cited {
        assert!(evidence.contains(part), "{part:?} is not in: {evidence}");
    }
    Ok(())
}
