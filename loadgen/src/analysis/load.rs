//! How many requests were under way when each was sent, and for how long any was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::observation::{Clock, Observation};

/// The load over a set of requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    /// Per observation: requests under way when it was sent, itself included.
    pub(super) in_flight: Vec<Option<u64>>,
    /// Nanoseconds during which at least one was under way and more were to come: what ends after the last was sent
    /// says nothing of how often they are sent. Where that is less than half of the time, they came in a wave, and
    /// all of it counts.
    pub(super) busy: u64,
}

impl Load {
    pub(super) fn of<'a>(observations: impl IntoIterator<Item = &'a Observation>) -> Self {
        let mut by_clock: BTreeMap<Clock, Vec<(u64, u64, usize)>> = BTreeMap::new();
        let mut load = Self { in_flight: Vec::new(), busy: 0 };
        for (index, observation) in observations.into_iter().enumerate() {
            load.in_flight.push(None);
            if let Some((clock, from, to)) = observation.interval() {
                by_clock.entry(clock).or_default().push((from, to, index));
            }
        }
        by_clock.into_values().for_each(|requests| load.add(requests));
        load
    }

    fn add(&mut self, mut requests: Vec<(u64, u64, usize)>) {
        requests.sort_unstable();
        let mut ends = BinaryHeap::new();
        let (mut covered, mut whole, mut sending) = (0, 0, 0);
        let (all, last) = (requests.len() as u64, requests.last().map_or(0, |request| request.0));
        for (from, to, index) in requests {
            while ends.peek().is_some_and(|Reverse(end)| *end <= from) {
                ends.pop();
            }
            ends.push(Reverse(to));
            self.in_flight[index] = Some(ends.len() as u64);
            whole += to.saturating_sub(from.max(covered));
            sending += to.min(last).saturating_sub(from.max(covered));
            covered = covered.max(to);
        }
        // The last one sent has its share of the time too.
        self.busy += if 2 * sending >= whole { sending + sending / (all - 1).max(1) } else { whole };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::observation::ClientSide;

    fn request(clock: Clock, sent: u64, end: u64) -> Observation {
        let client =
            ClientSide { clock, scheduled: sent, sent, first: None, last: None, end, ramp: false, failure: None };
        Observation { client: Some(client), ..Observation::default() }
    }

    #[test]
    fn requests_of_one_clock_overlap_and_those_of_two_do_not() {
        let run = Clock::Run(0);
        let requests = [
            request(run, 0, 10),
            request(run, 5, 20),
            request(run, 10, 12),
            request(run, 30, 40),
            request(Clock::Run(1), 6, 8),
            Observation::default(),
        ];
        let load = Load::of(&requests);
        assert_eq!(load.in_flight, [Some(1), Some(2), Some(2), Some(1), Some(1), None]);
        assert_eq!(load.busy, (20 + 20 / 3) + 2);
        let wave = [request(run, 0, 10), request(run, 1, 12), request(run, 2, 9)];
        assert_eq!(Load::of(&wave).busy, 12);
    }
}
