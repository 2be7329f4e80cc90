//! The server's own account of a run: its `/metrics`, read before, each second during, and after.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{timeout, timeout_at};

use super::sampler::Sampler;
use crate::client::{Metrics, Target};
use crate::server::{ServerFacts, Watch};
use crate::stats::{Aggregate, Histogram, ServerCheck};
use crate::words::{plain, tell};

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the run's end waits for the server's metrics.
const LAST: Duration = Duration::from_secs(2);

/// How often, and how many times, the server's histogram is read until it holds the last request.
const SETTLE: (Duration, usize) = (Duration::from_millis(50), 20);

/// The server's time to first token, as its histogram is named in Prometheus.
const TTFT: [&str; 2] =
    ["gen_ai_server_time_to_first_token_seconds_sum", "gen_ai_server_time_to_first_token_seconds_count"];

/// The readings while the run goes on.
pub(super) struct ServerSide {
    target: Target,
    /// None: the server has no metrics.
    running: Option<Running>,
}

struct Running {
    watch: Arc<Mutex<Watch>>,
    started: Instant,
    readings: Sampler,
}

/// What there is after the run.
pub(super) struct ServerAccount {
    target: Target,
    watch: Option<Watch>,
    /// The server's inside; none where it publishes nothing of it.
    pub(super) facts: Option<ServerFacts>,
    /// How long each reading during the run took.
    pub(super) cost: Histogram,
}

impl ServerSide {
    /// Reads the metrics as they are before the run, and begins to read them each second.
    pub(super) async fn watch(target: Target) -> Self {
        let before = Metrics::read(&target).await.unwrap_or_else(|error| {
            tell(&format!("warning: nothing is known of the server's inside: {}", plain(&format!("{error:#}"), 500)));
            None
        });
        let running = before.map(|before| {
            let watch = Arc::new(Mutex::new(Watch::new(before)));
            let readings = Sampler::start({
                let (target, watch) = (target.clone(), Arc::clone(&watch));
                move || read_once(target.clone(), Arc::clone(&watch))
            });
            Running { watch, started: Instant::now(), readings }
        });
        Self { target, running }
    }

    /// Reads the metrics as they are right after the run.
    pub(super) async fn stop(self) -> ServerAccount {
        let mut account = ServerAccount { target: self.target, watch: None, facts: None, cost: Histogram::default() };
        let Some(running) = self.running else { return account };
        let after = timeout(LAST, Metrics::read(&account.target)).await.ok().and_then(Result::ok).flatten();
        let time = running.started.elapsed();
        account.cost = running.readings.stop().await;
        let watch = mem::take(&mut *running.watch.lock().unwrap_or_else(PoisonError::into_inner));
        let facts = after.map(|after| watch.facts(&after, time));
        account.facts = facts.filter(|facts| *facts != ServerFacts::default());
        account.watch = Some(watch);
        account
    }
}

/// Waits its turn, reads, and says how long that took.
async fn read_once(target: Target, watch: Arc<Mutex<Watch>>) -> Option<Duration> {
    tokio::time::sleep(INTERVAL).await;
    let start = Instant::now();
    // A reading that fails says nothing.
    let metrics = Metrics::read(&target).await.ok()??;
    let took = start.elapsed();
    watch.lock().unwrap_or_else(PoisonError::into_inner).see(&metrics);
    Some(took)
}

impl ServerAccount {
    /// The server's histogram over the run against ours; absent where the server has none.
    pub(super) async fn check(&self, whole: &Aggregate, round_trip: &Histogram) -> Option<ServerCheck> {
        let watch = self.watch.as_ref()?;
        let mut gained = [0.0; 2];
        let until = tokio::time::Instant::now() + LAST;
        for _ in 0..SETTLE.1 {
            let now = timeout_at(until, Metrics::read(&self.target)).await.ok()?.ok()??;
            gained = TTFT.map(|name| watch.gained(&now, name).unwrap_or(0.0));
            // A server closes a request's account just after its last byte.
            if gained[1] >= whole.first_tokens() as f64 {
                break;
            }
            tokio::time::sleep(SETTLE.0).await;
        }
        ServerCheck::new(whole, gained[0], gained[1], round_trip)
    }
}
