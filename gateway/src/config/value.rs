//! Values people write with a unit: sizes and spans of time.
//!
//! In TOML both may be a bare number (bytes, seconds) or a string; flags are always strings.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes: `4096`, `512MiB`, `2GiB`, `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

/// A span of time: `30`, `30s`, `250ms`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(Duration);

const BYTE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

const TIME_UNITS: [(&str, f64); 5] = [("", 1.0), ("s", 1.0), ("ms", 0.001), ("m", 60.0), ("h", 3600.0)];

/// The number before the unit, and the unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| usize::try_from(number.checked_mul(factor)?).ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size such as 4096, 512MiB or 2GiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            BYTE_UNITS[2..5].iter().rev().find(|(_, factor)| self.0 > 0 && (self.0 as u64).is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 as u64 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Seconds {
    /// A whole number of seconds.
    pub const fn new(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// As a duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        number
            .parse::<f64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| Duration::try_from_secs_f64(number * factor).ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a span of time such as 30s, 250ms or 5m"))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

/// Serialises as text; deserialises from text or a bare number.
macro_rules! text_or_number {
    ($type:ty, $expecting:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = $expecting)]
                enum Written {
                    Integer(u64),
                    Float(f64),
                    Text(String),
                }
                let text = match Written::deserialize(deserializer)? {
                    Written::Integer(number) => number.to_string(),
                    Written::Float(number) => number.to_string(),
                    Written::Text(text) => text,
                };
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_or_number!(ByteSize, "a size such as 4096 or \"2GiB\"");
text_or_number!(Seconds, "a span of time such as 30 or \"5m\"");

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("4096", 4096, "4KiB"),
            ("2GiB", 2 << 30, "2GiB"),
            ("2 gib", 2 << 30, "2GiB"),
            ("1MB", 1_000_000, "1000000B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(printed.parse::<ByteSize>().unwrap(), size);
        }
        for text in ["", "GiB", "-1", "1.5GiB", "1TiBB", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_read_and_print() {
        for (text, millis) in [("30", 30_000), ("250ms", 250), ("5m", 300_000), ("1.5s", 1500), ("1h", 3_600_000)] {
            let span: Seconds = text.parse().unwrap();
            assert_eq!(span.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string().parse::<Seconds>().unwrap(), span);
        }
        for text in ["", "s", "-1", "5 parsecs", "1e400", "99999999999999999999999h"] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }
}
