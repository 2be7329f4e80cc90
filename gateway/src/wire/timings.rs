//! The ledger as a client sees it: milliseconds in JSON and in a `Server-Timing` header.

use std::{fmt::Write as _, time::Instant};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::ledger::{Ledger, Phase};

/// A ledger, read at one moment. The phases sum to the total.
#[derive(Debug, Clone, Serialize)]
pub struct Timings {
    total_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpot_ms: Option<f64>,
    phases: Phases,
    stall_ms: f64,
    preempted_ms: f64,
    interference_ms: f64,
}

#[derive(Debug, Clone)]
struct Phases(Vec<(Phase, f64)>);

impl Timings {
    /// Reads `ledger` as if it ended now.
    pub fn now(ledger: &Ledger) -> Self {
        Self::to(ledger, Instant::now())
    }

    /// Reads `ledger` as if it ended at `end`.
    pub fn to(ledger: &Ledger, end: Instant) -> Self {
        let end = end.max(ledger.started);
        let intervals = ledger.intervals(end);
        Self {
            total_ms: millis(end - ledger.started),
            ttft_ms: ledger.time_to_first_token().map(millis),
            tpot_ms: ledger.time_per_output_token().map(millis),
            phases: Phases(intervals.iter().map(|at| (at.phase, millis(at.end - at.start))).collect()),
            stall_ms: millis(ledger.stamps.stall),
            preempted_ms: millis(ledger.stamps.preempted),
            interference_ms: millis(ledger.stamps.interference),
        }
    }

    /// The value of a `Server-Timing` header.
    pub fn server_timing(&self) -> String {
        let mut header = String::new();
        for (phase, millis) in &self.phases.0 {
            // Writing to a string cannot fail.
            let _ = write!(header, "{};dur={millis:.6}, ", phase.as_str());
        }
        let _ = write!(header, "total;dur={:.6}", self.total_ms);
        header
    }
}

fn millis(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (phase, millis) in &self.0 {
            map.serialize_entry(&format!("{}_ms", phase.as_str()), millis)?;
        }
        map.end()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn json_and_header_say_the_same() {
        let mut ledger = Ledger::start();
        ledger.started -= Duration::from_micros(1234);
        ledger.received = Some(ledger.started + Duration::from_nanos(333_333));
        ledger.tokenized = Some(ledger.started + Duration::from_nanos(999_999));
        let timings = Timings::now(&ledger);
        let json = serde_json::to_value(&timings).unwrap();

        let phases = json["phases"].as_object().unwrap();
        assert_eq!(phases.keys().collect::<Vec<_>>().len(), 3);
        let sum: f64 = phases.values().map(|phase| phase.as_f64().unwrap()).sum();
        assert!((sum - json["total_ms"].as_f64().unwrap()).abs() < 1e-6);
        assert!(json.get("ttft_ms").is_none() && json.get("tpot_ms").is_none());
        assert!(timings.server_timing().starts_with("receive;dur=0.333333, tokenize;dur=0.666666, queue;dur="));
        assert!(timings.server_timing().contains(", total;dur="));
    }
}
