//! What ends a run early: SIGINT, SIGTERM and SIGHUP alike.
//!
//! Goose minds SIGINT itself, by its stop switch; the others are led to the same switch. The second signal ends
//! the process at once.

use std::io;
use std::process::exit;

use goose::{is_killswitch_triggered, trigger_killswitch};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens until the process ends, so that a report under way can still be cut off.
pub(super) fn listen() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // Whoever started us with nohup wants no end by it.
    let mut hang_up = if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                () = received(&mut hang_up) => {}
            }
            if is_killswitch_triggered() {
                exit(1);
            }
            trigger_killswitch("a signal to end");
        }
    });
    Ok(())
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}
