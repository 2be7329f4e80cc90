//! Which kind of file it is, by the keys of the first JSON object in it.

use std::fmt;
use std::io::Read;

use anyhow::{Context as _, bail};
use serde::Deserialize as _;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// What `--json` writes.
    Report,
    /// What `--records` writes.
    Records,
    /// OTLP as JSON.
    Traces,
}

impl Format {
    pub(super) fn of(file: impl Read) -> anyhow::Result<Self> {
        let mut values = serde_json::Deserializer::from_reader(file);
        let keys = Keys::deserialize(&mut values).context("is not JSON that can be analysed")?;
        let has = |wanted: &str| keys.0.iter().any(|key| key == wanted);
        if has("resourceSpans") || has("result") {
            Ok(Self::Traces)
        } else if has("schema") {
            Ok(Self::Report)
        } else if has("trace_id") && has("sent_us") {
            Ok(Self::Records)
        } else {
            bail!("is neither a report of --json, nor records of --records, nor spans in OTLP's JSON")
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Records => "records",
            Self::Traces => "OTLP spans",
        }
    }
}

/// An object's keys, of those that tell kinds apart; its values are passed over.
struct Keys(Vec<String>);

const TELLING: [&str; 5] = ["resourceSpans", "result", "schema", "trace_id", "sent_us"];

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap;

        impl<'de> Visitor<'de> for OfMap {
            type Value = Keys;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value::<IgnoredAny>()?;
                    if TELLING.contains(&key.as_str()) && !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(OfMap)
    }
}
