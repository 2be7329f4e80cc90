//! One distribution of times: quantiles to three digits, mean and maximum exact.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest time told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Significant decimal digits of a quantile: an error of at most 0.1%.
const DIGITS: u8 = 3;

/// An HDR histogram of microseconds, with the exact sum and maximum beside it.
#[derive(Debug, Clone)]
pub struct Histogram {
    inner: hdrhistogram::Histogram<u64>,
    sum_us: f64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let mut inner = hdrhistogram::Histogram::new(DIGITS).expect("3 digits are within 0 to 5");
        // Grows up to `LONGEST` as values come: most histograms stay small.
        inner.auto(true);
        Self { inner, sum_us: 0.0, max_us: 0 }
    }
}

impl Histogram {
    /// Adds one time.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.min(LONGEST).as_micros()).unwrap_or(u64::MAX);
        // Cannot fail: the histogram grows, and the value is bounded.
        if self.inner.record(micros).is_ok() {
            self.sum_us += micros as f64;
            self.max_us = self.max_us.max(micros);
        }
    }

    /// How many times were added.
    pub fn count(&self) -> u64 {
        self.inner.len()
    }

    /// The exact mean; none when empty.
    pub fn mean(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_secs_f64(self.sum_us / 1e6 / self.count() as f64))
    }

    /// The smallest recorded time that at least `quantile` of all do not exceed; none when empty.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_micros(self.inner.value_at_quantile(quantile).min(self.max_us)))
    }

    /// How many times were below `limit`, to the histogram's digits.
    pub fn count_below(&self, limit: Duration) -> u64 {
        match u64::try_from(limit.as_micros()).unwrap_or(u64::MAX) {
            0 => 0,
            micros => self.inner.count_between(0, micros - 1),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.inner.clear();
        self.sum_us = 0.0;
        self.max_us = 0;
    }

    /// The figures of the report; none when empty.
    pub fn distribution(&self) -> Option<Distribution> {
        let at = |quantile| self.quantile(quantile).map(millis);
        Some(Distribution {
            count: self.count(),
            mean: self.mean().map(millis)?,
            p50: at(0.50)?,
            p90: at(0.90)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            max: self.max_us as f64 / 1e3,
        })
    }
}

/// A distribution in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90% do not exceed it.
    pub p90: f64,
    /// 95% do not exceed it.
    pub p95: f64,
    /// 99% do not exceed it.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// A time in milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn known_values_give_known_figures() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.distribution(), None);
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        let figures = histogram.distribution().unwrap();
        assert_eq!(figures.count, 1000);
        assert!((figures.mean - 500.5).abs() < 1e-9 && figures.max == 1000.0);
        for (got, want) in [(figures.p50, 500.0), (figures.p90, 900.0), (figures.p95, 950.0), (figures.p99, 990.0)] {
            assert!((got - want).abs() <= want * 1e-3, "{got} should be {want}");
        }
        assert_eq!(histogram.count_below(Duration::from_millis(1)), 0);
        assert_eq!(histogram.count_below(Duration::from_millis(3)), 2);
    }

    #[test]
    fn a_quantile_never_exceeds_the_maximum() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(123_457));
        assert_eq!(histogram.distribution().unwrap().p99, 123.457);
        histogram.record(Duration::from_secs(1 << 40));
        assert_eq!(histogram.quantile(1.0), Some(LONGEST));
    }
}
