//! A load test: check the server, measure our own cost, attack, report.

use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context as _;
use url::Url;

use super::json_output::JsonOutput;
use super::sampler::Sampler;
use super::server_side::ServerSide;
use crate::analysis::{Evidence, analyse};
use crate::cli::Args;
use crate::client::{Target, check_ready, round_trip};
use crate::collect::{Collected, Collector, RecordFile};
use crate::record::Epoch;
use crate::report::{Report, SCHEMA, progress, write_json, write_terminal};
use crate::scenarios::{Corpus, Ending, attack};
use crate::spans::Exporter;
use crate::stats::{ClientCost, Histogram, Summary};

/// Round trips measured before the run.
const IDLE_PROBES: usize = 100;

/// The time after which no further one is begun: a server far away needs fewer to be told from a near one.
const IDLE_PROBING: Duration = Duration::from_secs(3);

/// Between two round trips during the run.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks at how late a timer wakes.
const LAG_INTERVAL: Duration = Duration::from_millis(10);

/// Runs the load test that `args` ask for against `host`, and writes its reports.
pub async fn run(args: &Args, host: Url) -> anyhow::Result<Report> {
    let plan = args.plan(&host);
    let json = JsonOutput::open(args.json.as_deref())?;
    let corpus = Corpus::embedded().context("the embedded prompts are broken")?;
    let records = args.records.as_deref().map(RecordFile::create).transpose()?;
    let exporter = Exporter::from_environment(|name| std::env::var(name).ok())?;
    let target = Target::new(host.clone(), plan.timeout)?;
    check_ready(&target).await?;
    let idle = idle_round_trips(&target).await?;
    // On a connection of its own: reading metrics takes none from the users.
    let server = ServerSide::watch(Target::new(host, plan.timeout)?).await;

    let epoch = Epoch::start();
    let (collector, intake) = Collector::start(&plan, epoch, records, exporter)?;
    let loaded = Sampler::start({
        let target = target.clone();
        move || loaded_round_trip(target.clone())
    });
    let lag = Sampler::start(wake_up_lag);
    let progress = (!args.quiet).then(|| tokio::spawn(progress(collector.live(), target.clone(), plan.clone())));

    let ending = attack(&plan, corpus, target.clone(), epoch, intake).await;
    if let Some(progress) = progress {
        progress.abort();
        // Its line is cleared when it is gone; it only ever ends as cancelled.
        let _ = progress.await;
    }
    let (loaded, lag, server) = (loaded.stop().await, lag.stop().await, server.stop().await);
    let mut collected = collector.finish()?;
    let ending = ending?;
    if let Ending::Interrupted { at_us } = ending {
        collected.whole.end_at(at_us);
        collected.steady.iter_mut().for_each(|steady| steady.end_at(at_us));
    }
    let summary = summarise(&collected);
    let steady_us = if summary.window.ramp_excluded { summary.window.start_us } else { 0 };
    let evidence = Evidence::of_rows(&collected.rows, collected.rows_drawn_from, steady_us, server.facts);
    let report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        started_unix_s: epoch.wall(0).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        interrupted: ending != Ending::TimeUp,
        config: plan,
        summary,
        server: server.facts,
        server_check_ms: server.check(&collected.whole, &loaded).await,
        client_cost_ms: ClientCost {
            round_trip_idle: idle.distribution(),
            round_trip_loaded: loaded.distribution(),
            metrics_read: server.cost.distribution(),
            wake_up_lag: lag.distribution(),
        },
        client_spans: collected.spans,
        analysis: analyse(&evidence),
        rows_drawn_from: collected.rows_drawn_from,
        rows: collected.rows,
    };
    let published = json.publish(|mut out| write_terminal(&report, &mut out), |mut out| write_json(&report, &mut out));
    published.and(collected.records)?;
    Ok(report)
}

fn summarise(collected: &Collected) -> Summary {
    Summary::choose(&collected.whole, collected.steady.as_ref())
}

async fn idle_round_trips(target: &Target) -> anyhow::Result<Histogram> {
    let mut histogram = Histogram::default();
    // The first one makes the connection.
    round_trip(target).await?;
    let begun = Instant::now();
    for _ in 0..IDLE_PROBES {
        histogram.record(round_trip(target).await?);
        if begun.elapsed() >= IDLE_PROBING {
            break;
        }
    }
    Ok(histogram)
}

async fn loaded_round_trip(target: Target) -> Option<Duration> {
    tokio::time::sleep(PROBE_INTERVAL).await;
    // A probe that fails says nothing about the round trip; the requests' errors are reported.
    round_trip(&target).await.ok()
}

/// How late a timer of one interval fires.
async fn wake_up_lag() -> Option<Duration> {
    let due = tokio::time::Instant::now() + LAG_INTERVAL;
    tokio::time::sleep_until(due).await;
    Some(due.elapsed())
}
