//! When the spans of a request begin and end: in whole microseconds, each phase's a microsecond before the next's.
//!
//! Trace viewers compute with whole microseconds, and cut a span's start and its duration to them separately. Jaeger's
//! critical path goes from a span back to one that ended strictly before it: of two that touch, or overlap by what was
//! cut, it leaves one out. So here
//! - nothing is left to be cut;
//! - every phase lasts a microsecond at least, and ends one before the next begins;
//! - the spans above begin with the first phase and end with the last.
//!
//! A phase that was shorter than two microseconds pushes the next by as much. What each took to the nanosecond is an
//! attribute.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ledger::{Interval, Ledger};

/// The times of one span.
pub(super) type SpanTime = [SystemTime; 2];

/// The times of each of `intervals`, in their order, and of the spans above.
pub(super) fn of_phases(ledger: &Ledger, intervals: &[Interval]) -> (Vec<SpanTime>, SpanTime) {
    let whole = |instant| micros(ledger.wall(instant));
    let first = whole(ledger.started);
    let mut times = Vec::with_capacity(intervals.len());
    let mut start = first;
    for (index, interval) in intervals.iter().enumerate() {
        let until = whole(interval.end);
        let is_last = index + 1 == intervals.len();
        let next = if is_last { until.max(start + 1) } else { until.max(start + 2) };
        let end = if is_last { next } else { next - 1 };
        times.push([at(start), at(end)]);
        start = next;
    }
    (times, [at(first), at(start)])
}

/// `time` without what is below a microsecond.
pub(super) fn truncated(time: SystemTime) -> SystemTime {
    at(micros(time))
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2_000)
}

fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}
