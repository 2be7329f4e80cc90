//! Good, acceptable or poor: one figure against two limits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The limits of one metric, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Good is below this.
    pub good_below_ms: f64,
    /// Acceptable is up to and including this; poor is beyond.
    pub acceptable_to_ms: f64,
}

impl Thresholds {
    /// Time to first token: half a second feels prompt, a second is still in the flow.
    pub const TTFT: Self = Self { good_below_ms: 500.0, acceptable_to_ms: 1000.0 };
    /// Time per output token: 50 ms is faster than people read, 100 ms about as fast.
    pub const TPOT: Self = Self { good_below_ms: 50.0, acceptable_to_ms: 100.0 };

    /// Where `value_ms` falls.
    pub fn grade(self, value_ms: f64) -> Grade {
        if value_ms < self.good_below_ms {
            Grade::Good
        } else if value_ms <= self.acceptable_to_ms {
            Grade::Acceptable
        } else {
            Grade::Poor
        }
    }
}

/// How a figure is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Users do not notice.
    Good,
    /// Users notice, and stay.
    Acceptable,
    /// Users wait.
    Poor,
}

impl fmt::Display for Grade {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Good => "good",
            Self::Acceptable => "acceptable",
            Self::Poor => "poor",
        })
    }
}

/// One judged figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// `ttft` or `tpot`.
    pub metric: String,
    /// `p50` or `p95`.
    pub percentile: String,
    /// The figure.
    pub value_ms: f64,
    /// The limit of good.
    pub good_below_ms: f64,
    /// The limit of acceptable.
    pub acceptable_to_ms: f64,
    /// The judgement.
    pub grade: Grade,
}

impl Verdict {
    /// Judges `value_ms`.
    pub fn new(metric: &str, percentile: &str, value_ms: f64, thresholds: Thresholds) -> Self {
        Self {
            metric: metric.into(),
            percentile: percentile.into(),
            value_ms,
            good_below_ms: thresholds.good_below_ms,
            acceptable_to_ms: thresholds.acceptable_to_ms,
            grade: thresholds.grade(value_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_belong_where_the_contract_puts_them() {
        let table = [
            (Thresholds::TTFT, 499.9, Grade::Good),
            (Thresholds::TTFT, 500.0, Grade::Acceptable),
            (Thresholds::TTFT, 1000.0, Grade::Acceptable),
            (Thresholds::TTFT, 1000.1, Grade::Poor),
            (Thresholds::TPOT, 49.9, Grade::Good),
            (Thresholds::TPOT, 50.0, Grade::Acceptable),
            (Thresholds::TPOT, 100.0, Grade::Acceptable),
            (Thresholds::TPOT, 100.1, Grade::Poor),
        ];
        for (thresholds, value, expected) in table {
            assert_eq!(thresholds.grade(value), expected, "{value} ms against {thresholds:?}");
        }
    }
}
