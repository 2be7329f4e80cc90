//! The progress line on stderr: rewritten every second on a terminal, a plain line every 5 seconds elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::cli::Plan;
use crate::client::Target;
use crate::collect::Live;
use crate::words::tell;

/// Shows progress until it is aborted.
pub async fn progress(live: Arc<Live>, target: Target, plan: Plan) {
    let terminal = std::io::stderr().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 5 });
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()))
        // The report follows where the line was.
        .with_finish(ProgressFinish::AndClear);
    let started = Instant::now();
    let (mut seen, mut seen_at) = (0, started);
    loop {
        tokio::time::sleep(every).await;
        let (tokens, now) = (target.tokens_received(), Instant::now());
        let rate = (tokens - seen) as f64 / (now - seen_at).as_secs_f64();
        (seen, seen_at) = (tokens, now);
        let line = line(&live, plan.users, started.elapsed(), rate);
        if terminal {
            bar.set_message(line);
        } else {
            tell(&line);
        }
    }
}

fn line(live: &Live, users: u32, elapsed: Duration, tokens_per_s: f64) -> String {
    let ttft = match live.take_recent_ttft() {
        Some(ttft) => format!("{:.0} ms", ttft.as_secs_f64() * 1e3),
        None => "–".into(),
    };
    format!(
        "{:>4} s  users {}/{users}  in flight {}  done {}  {tokens_per_s:.0} tokens/s  TTFT p50 {ttft}  errors {}",
        elapsed.as_secs(),
        live.users.load(Relaxed),
        live.in_flight.load(Relaxed),
        live.succeeded.load(Relaxed),
        live.failed.load(Relaxed),
    )
}
