//! The rounds: every row beside the machine's limits, and a peer's turn after ours.

use std::{io, sync::Arc, time::Duration};

use engine::{
    kernels::cpu::{BandwidthProbe, Threads, measure_integer_peak},
    model::Work,
};

use crate::{
    args::Args,
    peer::{Figures, Peer},
    rows::{Mode, Row},
    subject::Subject,
};

/// Prompts computed per round at most: each takes as long as many steps.
const MAX_PROMPTS: u32 = 3;

/// What the machine can do at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes read per second.
    pub(crate) bandwidth: f64,
    /// 8-bit operations per second.
    pub(crate) compute: f64,
}

/// Measures the limits, as often as asked.
pub(crate) struct Meter {
    threads: Arc<Threads>,
    probe: BandwidthProbe,
}

impl Meter {
    pub(crate) fn new(threads: Arc<Threads>) -> io::Result<Self> {
        let probe = BandwidthProbe::new(&threads)?;
        Ok(Self { threads, probe })
    }

    fn limits(&self) -> Limits {
        Limits { bandwidth: self.probe.measure(&self.threads), compute: measure_integer_peak(&self.threads) }
    }
}

/// One row over all rounds.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) work: Work,
    pub(crate) rounds: Vec<Round>,
}

/// One row in one round.
#[derive(Debug)]
pub(crate) struct Round {
    /// Measured right before.
    pub(crate) limits: Limits,
    /// Of each pass, in seconds.
    pub(crate) seconds: Vec<f64>,
    /// The peer's tokens per second in its turn of this round.
    pub(crate) peer: Option<f64>,
}

/// Measures all rows, in turns with the peer if there is one.
pub(crate) fn measure(
    args: &Args,
    rows: &[Row],
    subject: &mut Subject,
    meter: &Meter,
) -> anyhow::Result<Vec<Measured>> {
    let mut all: Vec<Measured> =
        rows.iter().map(|&row| Measured { row, work: row.work(subject.sizes()), rounds: Vec::new() }).collect();
    let peer = args.peer.as_deref().map(|command| Peer::new(command, args));
    let rounds = if peer.is_some() { args.rounds } else { 1 };
    for round in 1..=rounds {
        for measured in &mut all {
            let Row { mode, batch, prompt } = measured.row;
            eprintln!("round {round} of {rounds}: {mode:?}, batch {batch}, prompt {prompt}");
            let limits = meter.limits();
            measured.rounds.push(Round { limits, seconds: passes(args, measured.row, subject)?, peer: None });
        }
        if let Some(peer) = &peer {
            eprintln!("round {round} of {rounds}: the peer");
            add_peer(&mut all, &peer.run()?);
        }
    }
    Ok(all)
}

/// Times the passes of one row, after one that is not measured.
fn passes(args: &Args, row: Row, subject: &mut Subject) -> anyhow::Result<Vec<f64>> {
    let passes = match row.mode {
        Mode::Prefill => args.steps.min(MAX_PROMPTS),
        Mode::Decode => args.steps,
    };
    subject.pass(row)?;
    (0..passes).map(|_| subject.pass(row).map(|time: Duration| time.as_secs_f64())).collect()
}

fn add_peer(all: &mut [Measured], figures: &Figures) {
    for measured in all {
        if let Some(round) = measured.rounds.last_mut() {
            round.peer = figures.of(measured.row);
        }
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => 0.0,
        (middle, 0) => (values[middle - 1] + values[middle]) / 2.0,
        (middle, _) => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0]), 3.0);
        assert_eq!(median([9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median([9.0, 1.0, 5.0, 6.0]), 5.5);
    }
}
