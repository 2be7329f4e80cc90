//! What this machine can do at most, measured: reading memory, and multiplying 8-bit numbers.
//!
//! A step can be no faster than its bytes arrive, and no faster than its products are summed. Both limits take a
//! few hundredths of a second to measure, and may be repeated: what a shared machine gives changes.

mod bandwidth;
mod integer;

use std::time::Instant;

pub use bandwidth::BandwidthProbe;
pub use integer::measure_integer_peak;

/// Passes over the buffer, or over the multiplications; the best one counts.
const PASSES: usize = 8;

/// The best of several passes, as what a pass returns per second.
fn fastest(mut pass: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = pass();
        amount / start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(rate).fold(0.0, f64::max)
}
