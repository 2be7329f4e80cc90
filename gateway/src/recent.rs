//! The last requests that ended: what someone without a trace store looks at.
//!
//! Each caller sees its own, and none pushes out another's: so many are kept of each, and where that makes too many
//! in all, those of whoever has the most. What was refused before it was known whose it is, is not kept, and prompts
//! and answers never are.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::ledger::{Facts, Ledger, Outcome, Phase};

/// Requests kept of one caller, and in all.
const KEPT: usize = 200;
const KEPT_IN_ALL: usize = 20 * KEPT;

/// One request that ended.
#[derive(Debug, Clone)]
pub struct EndedRequest {
    /// 32 hex digits.
    pub trace_id: String,
    /// Its times; `closed` is set.
    pub ledger: Ledger,
    /// What is known of it, but no content.
    pub facts: Facts,
    /// How it ended.
    pub outcome: Outcome,
}

/// What requests are ordered by, the longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The whole request.
    Total,
    /// One phase; requests that did not reach it are left out.
    Phase(Phase),
}

/// The last requests, 200 of each caller.
#[derive(Debug, Default)]
pub struct Recent {
    ended: Mutex<BTreeMap<usize, VecDeque<EndedRequest>>>,
}

impl Recent {
    /// Keeps `request`, unless nobody knows whose it is, and lets go of the oldest.
    pub fn push(&self, mut request: EndedRequest) {
        let Some(caller) = request.facts.caller else { return };
        request.facts.content = None;
        let mut ended = self.lock();
        let own = ended.entry(caller).or_default();
        own.push_back(request);
        if own.len() > KEPT {
            own.pop_front();
        } else if ended.values().map(VecDeque::len).sum::<usize>() > KEPT_IN_ALL {
            ended.values_mut().max_by_key(|requests| requests.len()).and_then(VecDeque::pop_front);
        }
    }

    /// A caller's slowest by `order`, at most `limit`.
    pub fn slowest(&self, caller: usize, order: Order, limit: usize) -> Vec<EndedRequest> {
        let ended = self.lock();
        let own = ended.get(&caller).into_iter().flatten();
        let mut timed: Vec<_> = own.filter_map(|at| Some((order.time(at)?, at.clone()))).collect();
        drop(ended);
        timed.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        timed.into_iter().take(limit).map(|(_, request)| request).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, VecDeque<EndedRequest>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// `total` or a phase's name.
    pub fn parse(name: &str) -> Option<Self> {
        let phase = Phase::ALL.into_iter().find(|phase| phase.as_str() == name).map(Self::Phase);
        phase.or((name == "total").then_some(Self::Total))
    }

    fn time(self, request: &EndedRequest) -> Option<Duration> {
        let ledger = &request.ledger;
        let closed = ledger.closed?;
        match self {
            Self::Total => Some(closed.saturating_duration_since(ledger.started)),
            Self::Phase(phase) => {
                let at = ledger.intervals(closed).into_iter().find(|at| at.phase == phase)?;
                Some(at.end.saturating_duration_since(at.start))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Content;

    /// A request of `queue` ms in the queue after 1 ms in each phase before; it ended there, `total` ms old.
    fn request(total: u64, queued: Option<u64>) -> EndedRequest {
        let mut ledger = Ledger::start();
        let at = |millis| Some(ledger.started + Duration::from_millis(millis));
        let (received, tokenized, closed) = (at(1), queued.and(at(2)), at(total));
        let scheduled = queued.and_then(|millis| at(2 + millis));
        (ledger.received, ledger.tokenized, ledger.closed) = (received, tokenized, closed);
        ledger.stamps.scheduled = scheduled;
        let facts = Facts { caller: Some(0), content: Some(Content::default()), ..Facts::default() };
        EndedRequest { trace_id: total.to_string(), ledger, facts, outcome: Outcome::Stop }
    }

    fn ids(recent: &Recent, order: Order, limit: usize) -> Vec<String> {
        recent.slowest(0, order, limit).into_iter().map(|request| request.trace_id).collect()
    }

    #[test]
    fn the_slowest_come_first_and_those_without_the_phase_not_at_all() {
        let recent = Recent::default();
        for (total, queued) in [(50, Some(5)), (90, None), (70, Some(9))] {
            recent.push(request(total, queued));
        }
        assert_eq!(ids(&recent, Order::Total, 9), ["90", "70", "50"]);
        assert_eq!(ids(&recent, Order::Total, 1), ["90"]);
        assert_eq!(ids(&recent, Order::Phase(Phase::Queue), 9), ["70", "50"]);
        assert!(recent.slowest(0, Order::Total, 9).iter().all(|request| request.facts.content.is_none()));
    }

    #[test]
    fn the_oldest_make_room() {
        let recent = Recent::default();
        for total in 0..KEPT as u64 + 3 {
            recent.push(request(10 + total, None));
        }
        let kept = ids(&recent, Order::Total, usize::MAX);
        assert_eq!((kept.len(), kept.last().map(String::as_str)), (KEPT, Some("13")));
    }
    #[test]
    fn callers_see_their_own_and_push_out_nobody_elses() {
        let recent = Recent::default();
        let of = |caller, total| {
            let ended = request(total, None);
            EndedRequest { facts: Facts { caller, ..ended.facts }, ..ended }
        };
        recent.push(of(Some(7), 10));
        (0..3 * KEPT as u64).for_each(|total| recent.push(of(None, 20 + total)));
        (0..3 * KEPT as u64).for_each(|total| recent.push(of(Some(1), 20 + total)));
        (100..140)
            .flat_map(|caller| (0..KEPT as u64).map(move |total| of(Some(caller), 20 + total)))
            .for_each(|ended| recent.push(ended));
        let kept = |caller| recent.slowest(caller, Order::Total, usize::MAX).len();
        assert_eq!((kept(7), kept(0)), (1, 0));
        assert!((100..140).chain([1]).map(kept).sum::<usize>() < KEPT_IN_ALL);
        assert!(kept(1) > KEPT / 3);
    }
}
