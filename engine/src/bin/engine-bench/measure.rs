//! The rounds: every row beside the machine's limits, and a peer's turn after ours.

use engine::model::{ModelSizes, Work};

use crate::{
    args::Args,
    peer::{Figures, Peer},
    rows::{Mode, Row},
    subject::{Limits, Passes, Subject},
};

/// Prompts computed per round at most: each takes as long as many steps.
const MAX_PROMPTS: u32 = 3;

/// One row over all rounds.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) work: Work,
    /// Steps of a pass.
    pub(crate) steps: usize,
    pub(crate) rounds: Vec<Round>,
}

/// One row in one round.
#[derive(Debug)]
pub(crate) struct Round {
    /// Measured right before.
    pub(crate) limits: Limits,
    pub(crate) passes: Passes,
    /// The peer's tokens per second in its turn of this round.
    pub(crate) peer: Option<f64>,
}

/// Measures all rows, in turns with the peer if there is one; prompts in steps of at most `step_tokens`.
pub(crate) fn measure(
    args: &Args,
    rows: &[Row],
    step_tokens: usize,
    subject: &mut dyn Subject,
) -> anyhow::Result<Vec<Measured>> {
    let sizes = subject.sizes();
    let mut all: Vec<Measured> = rows.iter().map(|&row| Measured::new(row, &sizes, step_tokens)).collect();
    let peer = args.peer.as_deref().map(|command| Peer::new(command, args));
    let rounds = if peer.is_some() { args.rounds } else { 1 };
    for round in 1..=rounds {
        for measured in &mut all {
            let Row { mode, batch, prompt } = measured.row;
            eprintln!("round {round} of {rounds}: {mode:?}, batch {batch}, prompt {prompt}");
            let limits = subject.limits()?;
            let count = match mode {
                Mode::Prefill => args.steps.min(MAX_PROMPTS),
                Mode::Decode => args.steps,
            };
            measured.rounds.push(Round { limits, passes: subject.passes(measured.row, count)?, peer: None });
        }
        if let Some(peer) = &peer {
            eprintln!("round {round} of {rounds}: the peer");
            add_peer(&mut all, &peer.run()?);
        }
    }
    Ok(all)
}

impl Measured {
    fn new(row: Row, sizes: &ModelSizes, step_tokens: usize) -> Self {
        Self { row, work: row.work(sizes, step_tokens), steps: row.steps(step_tokens).len(), rounds: Vec::new() }
    }
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
