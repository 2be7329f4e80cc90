//! Configuration: clap flags over environment over one TOML file over defaults, checked once.
//!
//! Each concern has its own file with its own struct, defaults and ranges. Unknown keys and impossible
//! values are refused before anything starts, with the place, the key and the reason. Nothing outside this
//! folder reads a flag; the environment is read here and by the telemetry SDK (its own `OTEL_*` variables).

mod auth;
mod command;
mod engine;
mod flags;
mod limits;
mod logging;
mod model;
mod server;
mod telemetry;
mod value;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    auth::{ApiKeys, AuthConfig},
    command::ConfigCommand,
    engine::{EngineSettings, KvTypeName, PolicyName},
    flags::ServeFlags,
    limits::LimitsConfig,
    logging::{LogConfig, LogFormat},
    model::{DeviceName, ModelSettings, QuantizeName},
    server::ServerConfig,
    telemetry::{OtlpProtocol, TelemetryConfig},
    value::{ByteSize, Seconds},
};

/// Everything that can be set, by concern.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen and how to stop.
    pub server: ServerConfig,
    /// What a request may cost.
    pub limits: LimitsConfig,
    /// Which model, and how it is loaded.
    pub model: ModelSettings,
    /// How the engine is sized.
    pub engine: EngineSettings,
    /// Who may ask.
    pub auth: AuthConfig,
    /// Where traces and metrics go.
    pub telemetry: TelemetryConfig,
    /// What is printed.
    pub log: LogConfig,
}

/// A configuration that cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be: syntax, an unknown key, a wrong type.
    #[error("{origin}: {reason}")]
    Malformed {
        /// The file, or "flags and environment".
        origin: String,
        /// The parser's message, with line and key.
        reason: String,
    },
    /// A value outside its range.
    #[error("{origin}: {key}: {reason}")]
    Impossible {
        /// The file, or "flags and environment".
        origin: String,
        /// Such as `server.port`.
        key: &'static str,
        /// What it must be.
        reason: String,
    },
}

/// A value outside its range: the key and what it must be.
pub(crate) type Violation = (&'static str, String);

impl Config {
    /// Reads the file named in `flags`, lays the flags (and the environment behind them) over it, and checks.
    pub fn load(flags: &ServeFlags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => Self::read_table(path)?,
            None => toml::Table::new(),
        };
        let overlay = flags.table().map_err(|error| ConfigError::Malformed {
            origin: "flags and environment".to_owned(),
            reason: error.to_string(),
        })?;
        let config: Self = merge(file, overlay).try_into().map_err(|error: toml::de::Error| {
            ConfigError::Malformed { origin: "flags and environment".to_owned(), reason: error.to_string() }
        })?;
        config.checked("flags and environment")
    }

    /// The file's table, refused here already if it cannot hold by itself.
    fn read_table(path: &Path) -> Result<toml::Table, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let origin = path.display().to_string();
        let malformed = |error: toml::de::Error| ConfigError::Malformed {
            origin: origin.clone(),
            reason: error.to_string().trim_end().to_owned(),
        };
        let alone: Self = toml::from_str(&text).map_err(malformed)?;
        alone.checked(&origin)?;
        text.parse().map_err(malformed)
    }

    fn checked(self, origin: &str) -> Result<Self, ConfigError> {
        [
            self.server.check(),
            self.limits.check(),
            self.model.check(),
            self.engine.check(),
            self.auth.check(),
            self.telemetry.check(),
        ]
        .into_iter()
        .collect::<Result<(), Violation>>()
        .map_err(|(key, reason)| ConfigError::Impossible { origin: origin.to_owned(), key, reason })?;
        Ok(self)
    }
}

/// `over` laid over `base`, table by table.
fn merge(mut base: toml::Table, over: toml::Table) -> toml::Table {
    for (key, value) in over {
        let merged = match (base.remove(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => toml::Value::Table(merge(below, above)),
            (_, value) => value,
        };
        base.insert(key, merged);
    }
    base
}

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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn load(file: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, file).unwrap();
        let arguments = ["gateway", "--config", path.to_str().unwrap()].into_iter().chain(flags.iter().copied());
        Config::load(&<ServeFlags as clap::Parser>::try_parse_from(arguments).unwrap())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config =
            load("[server]\nport = 9000\nhost = \"0.0.0.0\"\n[engine]\nmax_batch = 4", &["--port", "9001"]).unwrap();
        assert_eq!(config.server.port, 9001);
        assert_eq!(config.server.host.to_string(), "0.0.0.0");
        assert_eq!(config.engine.max_batch, 4);
        assert_eq!(config.limits, LimitsConfig::default());
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let config = load(
            "",
            &[
                "--kv-memory",
                "2GiB",
                "--kv-type",
                "q8",
                "--policy",
                "shortest-prompt",
                "--prefix-cache",
                "false",
                "--speculative",
                "5",
                "--request-timeout",
                "5m",
                "--requests-per-minute",
                "90",
                "--gpu-memory-utilization",
                "0.5",
                "--max-step-tokens",
                "512",
                "--quantize",
                "fp8",
                "--device",
                "cpu",
                "--model",
                "m",
            ],
        )
        .unwrap();
        assert_eq!(config.engine.kv_memory, Some(ByteSize(2 << 30)));
        assert_eq!((config.engine.kv_type, config.engine.policy), (KvTypeName::Q8, PolicyName::ShortestPrompt));
        assert_eq!((config.engine.prefix_cache, config.engine.speculative_tokens), (false, 5));
        assert_eq!(config.limits.request_timeout.get().as_secs(), 300);
        assert_eq!(config.limits.requests_per_minute.map(NonZeroU32::get), Some(90));
        assert_eq!(config.limits.burst().map(NonZeroU32::get), Some(15));
        assert_eq!((config.engine.gpu_memory_utilization, config.engine.max_step_tokens), (0.5, Some(512)));
        assert_eq!(config.model.quantize, Some(QuantizeName::Fp8));
        assert_eq!(config.model.device, DeviceName::Cpu);
        assert_eq!(config.model.name, "m");
    }

    #[test]
    fn what_cannot_hold_is_refused_with_file_key_and_reason() {
        for (file, flags, key) in [
            ("[server]\nprot = 1", vec![], "prot"),
            ("colour = 1", vec![], "colour"),
            ("[server]\nport = \"x\"", vec![], "port"),
            ("[server]\nport = ", vec![], "port"),
            ("[engine]\nmax_batch = 0", vec![], "engine.max_batch"),
            ("[engine]\npolicy = \"random\"", vec![], "policy"),
            ("[engine]\nprefix_cache = \"maybe\"", vec![], "prefix_cache"),
            ("[engine]\nspeculative_tokens = 65", vec![], "engine.speculative_tokens"),
            ("[engine]\nkv_type = \"q2\"", vec![], "kv_type"),
            ("[engine]\ngpu_memory_utilization = 1.5", vec![], "engine.gpu_memory_utilization"),
            ("[engine]\ngpu_memory_utilization = 0.01", vec![], "engine.gpu_memory_utilization"),
            ("[engine]\ngpu_memory_utilization = nan", vec![], "engine.gpu_memory_utilization"),
            ("[engine]\nmax_step_tokens = 0", vec![], "engine.max_step_tokens"),
            ("[engine]\nkv_memory = \"2 parsecs\"", vec![], "parsecs"),
            ("[model]\nquantize = \"fp9\"", vec![], "`fp8`"),
            ("[limits]\nrequest_timeout = 0", vec![], "limits.request_timeout"),
            ("[limits]\nrequests_per_minute = 0", vec![], "requests_per_minute = 0"),
            ("[limits]\nrequests_per_minute = 0", vec![], "expected a nonzero u32"),
            ("[limits]\nburst = 0", vec![], "burst = 0"),
            ("[telemetry]\nspan_batch = 0", vec![], "telemetry.span_batch"),
            ("[telemetry]\nsample_ratio = 1.5", vec![], "telemetry.sample_ratio"),
            ("[telemetry]\notlp_endpoint = \"nowhere\"", vec![], "telemetry.otlp_endpoint"),
        ] {
            let message = load(file, &flags).unwrap_err().to_string();
            assert!(message.contains("gateway.toml") && message.contains(key), "{file}: {message}");
        }
        let message = load("", &["--max-batch", "0"]).unwrap_err().to_string();
        assert!(message.contains("engine.max_batch") && message.contains("flags"), "{message}");
        let message = load("", &["--gpu-memory-utilization", "1.2"]).unwrap_err().to_string();
        assert!(message.contains("engine.gpu_memory_utilization: 1.2 is not between 0.05 and 1"), "{message}");
        for flags in [
            ["--policy", "random"],
            ["--prefix-cache", "maybe"],
            ["--kv-type", "q2"],
            ["--speculative", "many"],
            ["--quantize", "fp9"],
            ["--gpu-memory-utilization", "most"],
        ] {
            let message =
                <ServeFlags as clap::Parser>::try_parse_from(["gateway"].into_iter().chain(flags)).unwrap_err();
            assert!(flags.iter().all(|part| message.to_string().contains(part)), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let flags = <ServeFlags as clap::Parser>::try_parse_from(["gateway", "--config", "/nowhere/g.toml"]).unwrap();
        assert!(Config::load(&flags).unwrap_err().to_string().contains("/nowhere/g.toml"));
    }
}
