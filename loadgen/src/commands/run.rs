//! A load test: check the server, measure our own cost, attack, report.

use std::fs::File;
use std::io::{stderr, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::sampler::Sampler;
use crate::cli::Args;
use crate::client::{ServerTtft, Target, check_ready, round_trip, server_ttft};
use crate::collect::{Collected, Collector};
use crate::record::Epoch;
use crate::report::{Measurement, Report, progress, write_json, write_terminal};
use crate::scenarios::{Corpus, Ending, attack};
use crate::stats::{Aggregate, ClientCost, Histogram, ServerCheck, Summary};

/// Round trips measured before the run.
const IDLE_PROBES: usize = 100;

/// Between two round trips during the run.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks at how late a timer wakes.
const LAG_INTERVAL: Duration = Duration::from_millis(10);

/// How often, and how many times, the server's histogram is read until it holds the last request.
const SETTLE: (Duration, usize) = (Duration::from_millis(50), 20);

/// Runs the load test that `args` ask for and writes its reports.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let plan = args.plan();
    let json = JsonOutput::open(args.json.as_deref())?;
    let corpus = Corpus::embedded().context("the embedded prompts are broken")?;
    let (collector, intake) = Collector::start(plan.users, plan.run_time, args.records.as_deref())?;
    let target = Target::new(args.host.clone(), plan.timeout)?;
    check_ready(&target).await?;
    let idle = idle_round_trips(&target).await?;
    let before = server_ttft(&target).await?;

    let started = SystemTime::now();
    let loaded = Sampler::start({
        let target = target.clone();
        move || loaded_round_trip(target.clone())
    });
    let lag = Sampler::start(wake_up_lag);
    let progress = (!args.quiet).then(|| tokio::spawn(progress(collector.live(), target.clone(), plan.clone())));

    let ending = attack(&plan, corpus, target.clone(), Epoch::start(), intake).await;
    if let Some(progress) = progress {
        progress.abort();
        // Its line is cleared when it is gone; it only ever ends as cancelled.
        let _ = progress.await;
    }
    let (loaded, lag) = (loaded.stop().await, lag.stop().await);
    let mut collected = collector.finish()?;
    let ending = ending?;
    if let Ending::Interrupted { at_us } = ending {
        collected.whole.end_at(at_us);
        collected.steady.iter_mut().for_each(|steady| steady.end_at(at_us));
    }
    let server_check = check_server(&target, before, &collected.whole, &loaded).await;
    let client_cost = ClientCost {
        round_trip_idle: idle.distribution(),
        round_trip_loaded: loaded.distribution(),
        wake_up_lag: lag.distribution(),
    };
    let report = Report::new(
        plan,
        started.duration_since(UNIX_EPOCH).unwrap_or_default(),
        ending,
        summarise(&collected),
        Measurement { client_cost, server_check },
    );
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

/// The server's histogram over the run against ours; absent where the server has none.
async fn check_server(
    target: &Target,
    before: Option<ServerTtft>,
    whole: &Aggregate,
    round_trip: &Histogram,
) -> Option<ServerCheck> {
    let before = before?;
    let mut gained = ServerTtft { sum_s: 0.0, count: 0.0 };
    for _ in 0..SETTLE.1 {
        let now = server_ttft(target).await.ok()??;
        gained = ServerTtft { sum_s: now.sum_s - before.sum_s, count: now.count - before.count };
        // A server closes a request's account just after its last byte.
        if gained.count >= whole.first_tokens() as f64 {
            break;
        }
        tokio::time::sleep(SETTLE.0).await;
    }
    ServerCheck::new(whole, gained.sum_s, gained.count, round_trip)
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
