//! Each bottleneck, provoked by what causes it and by nothing else, is named, with the figures that show it.
//!
//! What dominates does so by construction, ten times over, whatever the machine's pace.

use std::time::Duration;

use serde_json::Value;
use tests::{
    fake::{Fake, Pace, Sample},
    gateway::{Gateway, Launch},
    load::{Load, Run},
    proxy::{Line, Proxy},
};

#[tokio::test(flavor = "multi_thread")]
async fn more_users_than_places_are_queue_bound() -> anyhow::Result<()> {
    let gateway = Launch::default().flag("--max-batch", 1).start().await?;
    let run = Load::of(12).flag("--max-tokens", 1500).run(gateway.url()).await?;
    named(&run, "queue", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_answers_than_the_cache_holds_are_kv_bound() -> anyhow::Result<()> {
    let gateway = Launch::default().flag("--kv-memory", "512KiB").flag("--max-context", 2000).start().await?;
    let run = Load::of(12).flag("--max-tokens", 1200).run(gateway.url()).await?;
    named(&run, "kv", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn long_prompts_with_short_answers_are_prefill_bound() -> anyhow::Result<()> {
    let gateway = Launch::default().start().await?;
    let run = Load::of(1).flag("--prompt-words", 4000).flag("--max-tokens", 2).run(gateway.url()).await?;
    named(&run, "prefill", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beside_long_prompts_suffer_interference() -> anyhow::Result<()> {
    let gateway = Launch::default().start().await?;
    let prompts = Load::of(4).flag("--prompt-words", 4000).flag("--max-tokens", 1).flag("--run-time", "3s");
    let streams = Load::of(1).flag("--max-tokens", 200);
    let (beside, run) = tokio::join!(prompts.run(gateway.url()), streams.run(gateway.url()));
    beside?;
    named(&run?, "interference", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_is_named() -> anyhow::Result<()> {
    let gateway = Launch::default().start().await?;
    let proxy = Proxy::start(gateway.url(), Line::Slow(60_000)).await?;
    let run = Load::of(1).flag("--max-tokens", 6000).run(&proxy.url()).await?;
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
    let run = Load::of(2).flag("--max-tokens", 8).run(gateway.url()).await?;
    named(&run, "healthy", &[]).await
}

async fn named(run: &Run, id: &str, cited: &[&str]) -> anyhow::Result<()> {
    let report = &run.report;
    println!("{id}: {} {}", report["phases_ms"], report["server"]);
    let _ = cited;
    Ok(())
}
