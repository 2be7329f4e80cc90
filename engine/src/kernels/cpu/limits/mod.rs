//! What this machine can do at most, measured: reading memory, and multiplying.
//!
//! A step can be no faster than its bytes arrive, and no faster than its products are summed. Both limits take a
//! few hundredths of a second to measure, and may be repeated: what a shared machine gives changes.

mod bandwidth;
mod integer;

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub use bandwidth::BandwidthProbe;
pub use integer::measure_integer_peak;

use super::{Threads, dense::measure_peak};
use crate::loader::Dtype;

/// Passes over the buffer, or over the multiplications; the best one counts.
const PASSES: usize = 8;
/// The same where an engine's start waits for it.
const QUICK_PASSES: usize = 3;

/// What the threads of an engine can do at most, together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineLimits {
    /// Bytes read from memory per second. What fits into a cache is read faster.
    pub bytes_per_second: f64,
    /// Operations per second, two to a multiply-add, in the arithmetic that the weights are multiplied in.
    pub operations_per_second: f64,
}

/// What weights are multiplied in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Whole numbers of 8 bits, summed in 32: quantised weights.
    Bytes,
    /// What dense weights of a type are multiplied in: pairs of bf16 where weights are and the CPU can, else f32.
    Dense(Dtype),
}

impl MachineLimits {
    /// Measures them, once per process for each number of threads: the machine stays the same, and measuring
    /// beside an engine that runs would slow that and find too little. About a tenth of a second; an error
    /// where there is no memory to read.
    pub fn of_this_machine(threads: &Threads, arithmetic: Arithmetic) -> io::Result<Self> {
        static KNOWN: Mutex<Vec<((usize, Arithmetic), MachineLimits)>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (threads.count(), arithmetic);
        if let Some((_, limits)) = known.iter().find(|(other, _)| *other == key) {
            return Ok(*limits);
        }
        let bandwidth = known.iter().find(|((count, _), _)| *count == key.0).map(|(_, limits)| limits.bytes_per_second);
        let limits = Self {
            bytes_per_second: match bandwidth {
                Some(measured) => measured,
                None => BandwidthProbe::new(threads)?.best_of(QUICK_PASSES, threads),
            },
            operations_per_second: match arithmetic {
                Arithmetic::Bytes => integer::best_of(QUICK_PASSES, threads),
                Arithmetic::Dense(dtype) => measure_peak(QUICK_PASSES, dtype, threads),
            },
        };
        known.push((key, limits));
        Ok(limits)
    }
}

/// The best of several passes, as what a pass returns per second.
pub(super) fn fastest(passes: usize, mut pass: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = pass();
        amount / start.elapsed().as_secs_f64()
    };
    (0..passes).map(rate).fold(0.0, f64::max)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn limits_are_measured_once_for_each_number_of_threads() {
        for threads in [1, 2].map(|count| Threads::new(count).unwrap()) {
            let measure = |arithmetic| MachineLimits::of_this_machine(&threads, arithmetic).unwrap();
            let all = [Arithmetic::Bytes, Arithmetic::Dense(Dtype::Bf16), Arithmetic::Dense(Dtype::F32)].map(measure);
            for limits in all {
                assert!(limits.operations_per_second > 0.0 && limits.operations_per_second.is_finite());
                assert_eq!(limits.bytes_per_second, all[0].bytes_per_second);
            }
            assert!(all[0].bytes_per_second > 0.0 && all[0].bytes_per_second.is_finite());
            assert_eq!(measure(Arithmetic::Bytes), all[0]);
        }
    }
}
