//! Where a generation's time went when it did not go into its own tokens.
//!
//! Every moment from the first step on is counted at most once: a cursor moves on with each count. So the sums
//! together never exceed the time that passed. A reader that is slow is the cause before all others: a sequence
//! without reader would not have used blocks it had.

use std::time::{Duration, Instant};

/// The sums so far, and what the present is counted as.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attribution {
    sums: Sums,
    /// Up to when time was counted; `None` before the first step.
    counted: Option<Instant>,
    stalled: bool,
    preempted: bool,
}

/// Time by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) stall: Duration,
    pub(crate) preempted: Duration,
    pub(crate) interference: Duration,
}

/// A step's tokens, as they matter to one generation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepShare {
    /// Tokens of prompts, and of what others lost, that are not its own.
    pub(crate) others_prefill: usize,
    /// All tokens.
    pub(crate) tokens: usize,
}

impl Attribution {
    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(crate) fn is_preempted(&self) -> bool {
        self.preempted
    }

    /// A first step began: before it there is only the queue.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.counted.get_or_insert(now);
    }

    /// The reader fell behind, or came back.
    pub(crate) fn set_stalled(&mut self, stalled: bool, now: Instant) {
        self.settle(now);
        self.stalled = stalled;
    }

    /// The blocks were lost, or what was in them is computed again.
    pub(crate) fn set_preempted(&mut self, preempted: bool, now: Instant) {
        self.settle(now);
        self.preempted = preempted;
    }

    /// A step was computed, for this generation among others or for others alone.
    pub(crate) fn step(&mut self, started: Instant, now: Instant, share: StepShare) {
        let Some(counted) = self.counted.filter(|_| !self.stalled && !self.preempted) else { return };
        let nanos = now.saturating_duration_since(started.max(counted)).as_nanos();
        let part = nanos * share.others_prefill as u128 / (share.tokens.max(1) as u128);
        self.sums.interference += Duration::from_nanos(part as u64);
        self.counted = Some(counted.max(now));
    }

    /// Nothing more is counted.
    pub(crate) fn end(&mut self, now: Instant) {
        self.settle(now);
        (self.stalled, self.preempted, self.counted) = (false, false, None);
    }

    /// Counts what passed for what holds.
    pub(crate) fn settle(&mut self, now: Instant) {
        let Some(counted) = &mut self.counted else { return };
        let passed = now.saturating_duration_since(*counted);
        *counted += passed;
        if self.stalled {
            self.sums.stall += passed;
        } else if self.preempted {
            self.sums.preempted += passed;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn sums(stall: u64, preempted: u64, interference: u64) -> Sums {
        let [stall, preempted, interference] = [stall, preempted, interference].map(Duration::from_millis);
        Sums { stall, preempted, interference }
    }

    #[test]
    fn every_cause_gets_its_own_time() {
        let start = Instant::now();
        let mut time = Attribution::default();
        let half = StepShare { others_prefill: 50, tokens: 100 };
        time.step(start, at(start, 10), half);
        assert_eq!(time.sums(), sums(0, 0, 0), "it waits in the queue");
        time.begin(at(start, 10));
        time.step(at(start, 10), at(start, 30), half);
        assert_eq!(time.sums(), sums(0, 0, 10));
        time.set_preempted(true, at(start, 40));
        time.step(at(start, 40), at(start, 60), half);
        time.set_stalled(true, at(start, 60));
        assert_eq!(time.sums(), sums(0, 20, 10), "a step it had no blocks for is no interference");
        time.set_stalled(false, at(start, 100));
        time.set_preempted(false, at(start, 105));
        assert_eq!(time.sums(), sums(40, 25, 10), "both at once is the reader's");
        time.step(at(start, 90), at(start, 115), StepShare { others_prefill: 10, tokens: 10 });
        assert_eq!(time.sums(), sums(40, 25, 20), "what was counted is not counted again");
    }

    proptest! {
        #[test]
        fn the_sums_never_exceed_the_time_that_passed(
            events in proptest::collection::vec((0..6_u8, 0..50_u64, 0..40_u64, 0..90_u64, 0..20_usize), 0..60),
        ) {
            let start = Instant::now();
            let mut time = Attribution::default();
            let (mut now, mut begun) = (start, None);
            for (event, wait, length, overlap, others_prefill) in events {
                now += Duration::from_millis(wait);
                match event {
                    0 => {
                        begun.get_or_insert(now);
                        time.begin(now);
                    }
                    1 => time.set_stalled(!time.is_stalled(), now),
                    2 => time.set_preempted(!time.is_preempted(), now),
                    3 => time.settle(now),
                    _ => {
                        // It may have begun while those before it were under way.
                        let started = start.max(now - Duration::from_millis(overlap));
                        now += Duration::from_millis(length);
                        time.step(started, now, StepShare { others_prefill, tokens: 20 });
                    }
                }
                let Sums { stall, preempted, interference } = time.sums();
                let passed = begun.map_or(Duration::ZERO, |begun| now - begun);
                prop_assert!(stall + preempted + interference <= passed);
            }
        }
    }
}
