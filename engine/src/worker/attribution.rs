//! Where a generation's time went when it did not go into its own tokens.
//!
//! Every moment from the first step on is counted at most once: a cursor moves on with each count. So the sums
//! together never exceed the time that passed. A reader that is slow is the cause before all others: a sequence
//! without reader would not have used blocks it had.

use std::time::{Duration, Instant};

use crate::{
    observer::StepReport,
    stamps::{Interruption, InterruptionCause, PhaseSteps, Stamps},
};

/// The sums so far, and what the present is counted as.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attribution {
    sums: Sums,
    /// Up to when time was counted; `None` before the first step.
    counted: Option<Instant>,
    stalled: bool,
    preempted: bool,
    /// The sums at the first token.
    at_first_token: Option<Sums>,
    prefill: PhaseSteps,
    decode: PhaseSteps,
    interruptions: Vec<Interruption>,
    more_interruptions: u32,
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
    /// Whether any are its own.
    pub(crate) takes_part: bool,
}

impl Attribution {
    /// All that is known, up to when it was settled.
    pub(crate) fn write(self, stamps: &mut Stamps) {
        let prefill = self.at_first_token.unwrap_or(self.sums);
        stamps.prefill = prefill.of_phase(self.prefill);
        stamps.decode = self.sums.since(prefill).of_phase(self.decode);
        let Sums { stall, preempted, interference } = self.sums;
        (stamps.stall, stamps.preempted, stamps.interference) = (stall, preempted, interference);
        (stamps.interruptions, stamps.more_interruptions) = (self.interruptions, self.more_interruptions);
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
        self.interrupt(InterruptionCause::Stalled, stalled, now);
        self.stalled = stalled;
    }

    /// The blocks were lost, or what was in them is computed again.
    pub(crate) fn set_preempted(&mut self, preempted: bool, now: Instant) {
        self.settle(now);
        self.interrupt(InterruptionCause::Preempted, preempted, now);
        self.preempted = preempted;
    }

    /// The first token is known: what comes now is the answer's time.
    pub(crate) fn first_token(&mut self, now: Instant) {
        self.settle(now);
        self.at_first_token.get_or_insert(self.sums);
    }

    /// A step in which it had a part was computed.
    pub(crate) fn took_part(&mut self, step: &StepReport) {
        match self.at_first_token {
            None => self.prefill.add(step),
            Some(_) => self.decode.add(step),
        }
    }

    /// An interruption begins or ends; one that goes on neither.
    fn interrupt(&mut self, cause: InterruptionCause, lasts: bool, now: Instant) {
        let lasted = match cause {
            InterruptionCause::Preempted => self.preempted,
            InterruptionCause::Stalled => self.stalled,
        };
        if lasts && !lasted {
            match self.interruptions.len() < Stamps::MAX_INTERRUPTIONS {
                true => self.interruptions.push(Interruption { cause, from: now, until: None }),
                false => self.more_interruptions += 1,
            }
        } else if lasted && !lasts {
            // If it was kept, it is the only one of its cause without an end.
            let kept = self.interruptions.iter_mut().rev().find(|it| it.cause == cause && it.until.is_none());
            kept.into_iter().for_each(|interruption| interruption.until = Some(now));
        }
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
        self.set_stalled(false, now);
        self.set_preempted(false, now);
        self.counted = None;
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

impl Sums {
    fn since(self, before: Self) -> Self {
        Self {
            stall: self.stall - before.stall,
            preempted: self.preempted - before.preempted,
            interference: self.interference - before.interference,
        }
    }

    fn of_phase(self, steps: PhaseSteps) -> PhaseSteps {
        let Self { stall, preempted, interference } = self;
        PhaseSteps { stall, preempted, interference, ..steps }
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
        let half = StepShare { others_prefill: 50, tokens: 100, takes_part: true };
        time.step(start, at(start, 10), half);
        assert_eq!(time.sums, sums(0, 0, 0), "it waits in the queue");
        time.begin(at(start, 10));
        time.step(at(start, 10), at(start, 30), half);
        assert_eq!(time.sums, sums(0, 0, 10));
        time.set_preempted(true, at(start, 40));
        time.step(at(start, 40), at(start, 60), half);
        time.set_stalled(true, at(start, 60));
        assert_eq!(time.sums, sums(0, 20, 10), "a step it had no blocks for is no interference");
        time.set_stalled(false, at(start, 100));
        time.set_preempted(false, at(start, 105));
        assert_eq!(time.sums, sums(40, 25, 10), "both at once is the reader's");
        time.step(at(start, 90), at(start, 115), StepShare { others_prefill: 10, tokens: 10, takes_part: true });
        assert_eq!(time.sums, sums(40, 25, 20), "what was counted is not counted again");
        time.first_token(at(start, 120));
        time.set_preempted(true, at(start, 130));
        time.settle(at(start, 135));
        let mut stamps = Stamps::default();
        time.write(&mut stamps);
        let of = |phase: &PhaseSteps| [phase.stall, phase.preempted, phase.interference].map(|time| time.as_millis());
        assert_eq!((of(&stamps.prefill), of(&stamps.decode)), ([40, 25, 20], [0, 5, 0]));
        let lasted = |from, until: Option<u64>| (at(start, from), until.map(|until| at(start, until)));
        assert_eq!(
            stamps.interruptions.iter().map(|it| (it.from, it.until)).collect::<Vec<_>>(),
            [lasted(40, Some(105)), lasted(60, Some(100)), lasted(130, None)]
        );
    }

    #[test]
    fn interruptions_are_kept_up_to_a_bound_and_counted_beyond() {
        let start = Instant::now();
        let mut time = Attribution::default();
        time.begin(start);
        for round in 0..36 {
            for (preempted, after) in [(true, 0), (true, 1), (false, 2), (false, 3)] {
                time.set_preempted(preempted, at(start, 10 * round + after));
            }
        }
        time.set_stalled(true, at(start, 400));
        time.end(at(start, 410));
        let mut stamps = Stamps::default();
        time.write(&mut stamps);
        assert_eq!((stamps.interruptions.len(), stamps.more_interruptions), (Stamps::MAX_INTERRUPTIONS, 5));
        assert!(stamps.interruptions.iter().all(|it| it.until == Some(it.from + Duration::from_millis(2))));
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
                        time.step(started, now, StepShare { others_prefill, tokens: 20, takes_part: true });
                    }
                }
                let Sums { stall, preempted, interference } = time.sums;
                let passed = begun.map_or(Duration::ZERO, |begun| now - begun);
                prop_assert!(stall + preempted + interference <= passed);
            }
        }
    }
}
