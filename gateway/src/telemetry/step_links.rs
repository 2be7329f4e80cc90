//! The sampled steps that one request was in: few, however long it runs.

use std::time::Instant;

use opentelemetry::trace::{Link, SpanContext};

use crate::ledger::{Interval, Phase};

/// Links of one phase.
const MAX_PER_PHASE: usize = 32;
/// Steps kept of a request.
const MAX: usize = 2 * MAX_PER_PHASE;

/// Every step at first; as they grow many every second, every fourth, so that those kept are spread evenly.
#[derive(Debug, Default)]
pub(super) struct StepLinks {
    kept: Vec<(Instant, SpanContext)>,
    seen: usize,
    /// One in 2 to this power is kept.
    thinned: u32,
}

impl StepLinks {
    /// It was in a step that began at `started`.
    pub(super) fn add(&mut self, started: Instant, step: &SpanContext) {
        if self.seen.is_multiple_of(1 << self.thinned) {
            if self.kept.len() == MAX {
                let mut index = 0;
                self.kept.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.thinned += 1;
            }
            self.kept.push((started, step.clone()));
        }
        self.seen += 1;
    }

    /// Those that began in a phase in which steps are computed for the request.
    pub(super) fn of(&self, interval: &Interval) -> Vec<Link> {
        if !matches!(interval.phase, Phase::Prefill | Phase::Decode) {
            return Vec::new();
        }
        let inside = |(started, _): &&(Instant, SpanContext)| interval.start <= *started && *started < interval.end;
        let every = self.kept.iter().filter(inside).count().div_ceil(MAX_PER_PHASE).max(1);
        let steps = self.kept.iter().filter(inside).step_by(every);
        steps.map(|(_, step)| Link::with_context(step.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::{
        SpanId, TraceId,
        trace::{TraceFlags, TraceState},
    };

    use super::*;

    fn step(number: u64) -> SpanContext {
        let (trace, span) = (TraceId::from(1), SpanId::from(number));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    /// A prefill of 10 ms and a decode, of a request that is in a step every millisecond, from 1 on.
    fn links(steps: u64) -> [Vec<u64>; 2] {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut all = StepLinks::default();
        (1..=steps).for_each(|number| all.add(at(number), &step(number)));
        assert!(all.kept.len() <= MAX);
        let of = |phase, start, end| {
            let links = all.of(&Interval { phase, start, end });
            links.iter().map(|link| u64::from_be_bytes(link.span_context.span_id().to_bytes())).collect()
        };
        assert_eq!(of(Phase::Queue, start, at(100_000)), Vec::<u64>::new());
        [of(Phase::Prefill, at(1), at(11)), of(Phase::Decode, at(11), at(100_000))]
    }

    #[test]
    fn a_step_belongs_to_the_phase_in_which_it_began() {
        assert_eq!(links(0), [Vec::<u64>::new(), Vec::new()]);
        assert_eq!(links(13), [(1..=10).collect::<Vec<_>>(), vec![11, 12, 13]]);
    }

    #[test]
    fn links_of_a_long_phase_are_few_and_spread_evenly() {
        for steps in [43, 70, 200, 10_000] {
            let [_, decode] = links(steps);
            assert!((16..=MAX_PER_PHASE).contains(&decode.len()), "{steps}: {decode:?}");
            let gaps: Vec<_> = decode.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{decode:?}");
            assert!(steps - decode.last().copied().unwrap_or_default() < 2 * gaps[0], "{decode:?}");
        }
    }
}
