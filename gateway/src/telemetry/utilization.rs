//! How much of what the machine can do the recent steps used.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use engine::{MachineLimits, StepReport, Work};

/// Seconds of computing after which a step counts 1/e of what it did.
const MEMORY: f64 = 1.0;

/// Shares of the machine's limits. Neither is capped: a model that fits into a cache is read faster than memory,
/// and its share of the memory's bandwidth may exceed 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Utilization {
    pub(super) memory_bandwidth: f64,
    pub(super) compute: f64,
}

impl Utilization {
    /// Of one step; `None` if it took no time.
    pub(super) fn of(report: &StepReport, limits: MachineLimits) -> Option<Self> {
        let Work { bytes, operations } = report.work;
        let seconds = report.computing().as_secs_f64();
        Sums { bytes: bytes as f64, operations: operations as f64, seconds }.share(limits)
    }
}

/// What the recent steps did, over about the last second of their computing: time between steps does not count, so
/// an idle engine keeps the shares of its last steps.
#[derive(Debug, Default)]
pub(super) struct RecentSteps(Mutex<Sums>);

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    bytes: f64,
    operations: f64,
    seconds: f64,
}

impl RecentSteps {
    /// One more step.
    pub(super) fn add(&self, work: Work, computing: Duration) {
        let seconds = computing.as_secs_f64();
        let keep = (-seconds / MEMORY).exp();
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sums = Sums {
            bytes: sums.bytes * keep + work.bytes as f64,
            operations: sums.operations * keep + work.operations as f64,
            seconds: sums.seconds * keep + seconds,
        };
    }

    /// Their share; `None` before the first.
    pub(super) fn utilization(&self, limits: MachineLimits) -> Option<Utilization> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).share(limits)
    }
}

impl Sums {
    fn share(self, limits: MachineLimits) -> Option<Utilization> {
        (self.seconds > 0.0).then(|| Utilization {
            memory_bandwidth: self.bytes / self.seconds / limits.bytes_per_second,
            compute: self.operations / self.seconds / limits.operations_per_second,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const LIMITS: MachineLimits = MachineLimits { bytes_per_second: 1000.0, operations_per_second: 500.0 };

    #[test]
    fn steady_steps_have_their_own_share_and_old_ones_are_forgotten() {
        let recent = RecentSteps::default();
        assert_eq!(recent.utilization(LIMITS), None);
        let step = |bytes, operations| recent.add(Work { bytes, operations }, Duration::from_millis(10));
        for _ in 0..20 {
            step(8, 1);
            let Utilization { memory_bandwidth, compute } = recent.utilization(LIMITS).unwrap();
            assert!((memory_bandwidth - 0.8).abs() < 1e-9 && (compute - 0.2).abs() < 1e-9);
        }
        // A second of others later they count for next to nothing beside them.
        (0..1000).for_each(|_| step(12, 2));
        let Utilization { memory_bandwidth, compute } = recent.utilization(LIMITS).unwrap();
        assert!((memory_bandwidth - 1.2).abs() < 1e-3, "not capped: {memory_bandwidth}");
        assert!((compute - 0.4).abs() < 1e-3);
    }
}
