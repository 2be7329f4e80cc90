//! What telemetry costs users: the demo model under 50 users, with spans exported and without, in turns.
//!
//! ```sh
//! cargo bench --workspace --bench telemetry_load           # 6 rounds
//! cargo bench --workspace --bench telemetry_load -- 20
//! ```
//!
//! Two gateways run side by side, of which one is loaded at a time; rounds swap which is first. The collector
//! takes what it gets and looks at nothing, but shares the machine. A ratio is of exporting to not exporting.

use std::path::Path;

use anyhow::Context;
use axum::{Router, body::Bytes, routing::post};
use serde_json::Value;
use tests::{
    gateway::{Gateway, Launch},
    load::Load,
};
use tokio::net::TcpListener;

/// What users see of a run.
#[derive(Debug, Clone, Copy)]
struct Seen {
    tokens_per_s: f64,
    ttft_p99_ms: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(6);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo").canonicalize()?;
    let launch = || Launch::default().model(demo.display());
    let without = launch().start().await?;
    let endpoint = collector().await?;
    let with = launch().variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).start().await?;
    for gateway in [&without, &with] {
        see(gateway, "3s").await?;
    }
    let (mut tokens, mut ttft) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (on, off) = match round % 2 {
            0 => {
                let on = see(&with, "10s").await?;
                (on, see(&without, "10s").await?)
            }
            _ => {
                let off = see(&without, "10s").await?;
                (see(&with, "10s").await?, off)
            }
        };
        println!("round {round}: exporting {on:.1?}, not exporting {off:.1?}");
        tokens.push(on.tokens_per_s / off.tokens_per_s);
        ttft.push(on.ttft_p99_ms / off.ttft_p99_ms);
    }
    println!("output tokens/s {}", spread(tokens));
    println!("p99 TTFT        {}", spread(ttft));
    Ok(())
}

async fn see(gateway: &Gateway, time: &str) -> anyhow::Result<Seen> {
    let report = Load::of(50).flag("--run-time", time).run(gateway.url()).await?.report;
    let figure = |value: &Value| value.as_f64().context("the report lacks a figure");
    Ok(Seen {
        tokens_per_s: figure(&report["throughput"]["output_tokens_per_s"])?,
        ttft_p99_ms: figure(&report["latencies_ms"]["ttft"]["p99"])?,
    })
}

fn spread(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios.first().copied().unwrap_or(f64::NAN), ratios.last().copied().unwrap_or(f64::NAN));
    let median = (ratios[(ratios.len() - 1) / 2] + ratios[ratios.len() / 2]) / 2.0;
    format!("× {median:.4} (median of {} rounds, {least:.4} to {most:.4})", ratios.len())
}

/// The URL of something that takes every export.
async fn collector() -> anyhow::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let limit = axum::extract::DefaultBodyLimit::max(64 << 20);
    let router = Router::new().route("/v1/traces", post(async |_: Bytes| ())).layer(limit);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
