//! Configuration: each concern has its own file with its own struct, defaults and ranges.

mod logging;
mod telemetry;

pub use self::{
    logging::{LogConfig, LogFormat},
    telemetry::{OtlpProtocol, TelemetryConfig},
};

/// A value outside its range: the key and what it must be.
pub(crate) type Violation = (&'static str, String);

/// Refuses a value outside `range`.
pub(crate) fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), Violation> {
    if range.contains(&value) {
        return Ok(());
    }
    Err((key, format!("{value} is not between {} and {}", range.start(), range.end())))
}
