//! Why a sequence did not come to its turn.

use super::{Scheduler, SequenceId};

/// What keeps a sequence without blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// There is no place in the batch.
    Batch,
    /// There are not enough free blocks, for it or for one before it.
    Kv,
    /// The tokens of the step are spent on others.
    StepBudget,
    /// A younger sequence was let go first, and has what it could have had.
    Fairness,
}

impl Scheduler {
    /// Who is held up after a plan that stopped at `hold`. Had all been admitted in order of arrival, then as many of
    /// the oldest that wait as there are younger ones running would run in their place.
    pub(super) fn held(&self, hold: Option<Hold>) -> Vec<(SequenceId, Hold)> {
        let mut older = self.running.values().filter(|sequence| sequence.is_awake()).peekable();
        let mut younger = self.awake();
        let waiting = self.waiting.values().filter(|sequence| sequence.is_admissible());
        let held = waiting.enumerate().filter_map(|(before, sequence)| {
            while older.next_if(|running| running.id < sequence.id).is_some() {
                younger -= 1;
            }
            let hold = if before < younger { Some(Hold::Fairness) } else { hold };
            Some((sequence.id, hold?))
        });
        held.collect()
    }
}
