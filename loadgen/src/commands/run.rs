//! A load test: check the server, measure our own cost, attack, report.

use std::fs::File;
use std::io::{stderr, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;

use super::sampler::Sampler;
use super::server_side::ServerSide;
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

/// Between two round trips during the run.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks at how late a timer wakes.
const LAG_INTERVAL: Duration = Duration::from_millis(10);

/// Runs the load test that `args` ask for and writes its reports.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let plan = args.plan();
    let json = JsonOutput::open(args.json.as_deref())?;
    let corpus = Corpus::embedded().context("the embedded prompts are broken")?;
    let records = args.records.as_deref().map(RecordFile::create).transpose()?;
    let exporter = Exporter::from_environment(|name| std::env::var(name).ok())?;
    let target = Target::new(args.host.clone(), plan.timeout)?;
    check_ready(&target).await?;
    let idle = idle_round_trips(&target).await?;
    // On a connection of its own: reading metrics takes none from the users.
    let server = ServerSide::watch(Target::new(args.host.clone(), plan.timeout)?).await;

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
    let report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        started_unix_s: epoch.wall(0).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        interrupted: ending != Ending::TimeUp,
        config: plan,
        summary: summarise(&collected),
        server: server.facts,
        server_check_ms: server.check(&collected.whole, &loaded).await,
        client_cost_ms: ClientCost {
            round_trip_idle: idle.distribution(),
            round_trip_loaded: loaded.distribution(),
            metrics_read: server.cost.distribution(),
            wake_up_lag: lag.distribution(),
        },
        client_spans: collected.spans,
        rows_drawn_from: collected.rows_drawn_from,
        rows: collected.rows,
    };
    json.publish(&report)?;
    Ok(report)
}

fn summarise(collected: &Collected) -> Summary {
    Summary::choose(&collected.whole, collected.steady.as_ref())
}

async fn idle_round_trips(target: &Target) -> anyhow::Result<Histogram> {
    let mut histogram = Histogram::default();
    // The first one makes the connection.
    round_trip(target).await?;
    for _ in 0..IDLE_PROBES {
        histogram.record(round_trip(target).await?);
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

/// Where the JSON goes, opened before the run so that a bad path does not cost one.
enum JsonOutput {
    None,
    Stdout,
    File(PathBuf, File),
}

impl JsonOutput {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            None => Ok(Self::None),
            Some(path) if path == Path::new("-") => Ok(Self::Stdout),
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot create --json {}", path.display()))?;
                Ok(Self::File(path.to_owned(), file))
            }
        }
    }

    /// Writes the JSON, and the table to whichever of stdout and stderr is left for it.
    fn publish(self, report: &Report) -> anyhow::Result<()> {
        match self {
            Self::None => write_terminal(report, &mut stdout().lock())?,
            Self::Stdout => {
                write_terminal(report, &mut stderr().lock())?;
                write_json(report, &mut stdout().lock())?;
            }
            Self::File(path, mut file) => {
                write_terminal(report, &mut stdout().lock())?;
                write_json(report, &mut file).with_context(|| format!("cannot write --json {}", path.display()))?;
            }
        }
        Ok(())
    }
}
