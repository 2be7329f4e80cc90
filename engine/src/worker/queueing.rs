//! What kept a request in the queue: time between plans goes to what the plan before said.

use std::time::Instant;

use crate::{scheduler::Hold, stamps::Blocked};

/// The sums so far, and what the present is counted as.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Queueing {
    blocked: Blocked,
    /// What holds it up, and up to when that is counted.
    held: Option<(Hold, Instant)>,
}

impl Queueing {
    pub(crate) fn blocked(&self) -> Blocked {
        self.blocked
    }

    /// A plan was made without it, or, without a hold, with it.
    pub(crate) fn planned(&mut self, hold: Option<Hold>, now: Instant) {
        self.settle(now);
        self.held = hold.map(|hold| (hold, now));
    }

    /// Counts what passed for what holds.
    pub(crate) fn settle(&mut self, now: Instant) {
        let Some((hold, counted)) = &mut self.held else { return };
        let passed = now.saturating_duration_since(*counted);
        *counted += passed;
        let sum = match hold {
            Hold::Batch => &mut self.blocked.batch,
            Hold::Kv => &mut self.blocked.kv,
            Hold::StepBudget => &mut self.blocked.step_budget,
            Hold::Fairness => &mut self.blocked.fairness,
        };
        *sum += passed;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_goes_to_what_the_plan_before_said() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut queueing = Queueing::default();
        queueing.settle(at(5));
        assert_eq!(queueing.blocked().total(), Duration::ZERO, "no plan knew of it");
        for (hold, millis) in [
            (Some(Hold::Batch), 10),
            (Some(Hold::Kv), 13),
            (Some(Hold::Kv), 18),
            (Some(Hold::Fairness), 20),
            (Some(Hold::StepBudget), 27),
            (None, 28),
            (None, 40),
        ] {
            queueing.planned(hold, at(millis));
        }
        let [batch, kv, fairness, step_budget] = [3, 7, 7, 1].map(Duration::from_millis);
        assert_eq!(queueing.blocked(), Blocked { batch, kv, step_budget, fairness });
    }
}
