//! The plan that the flags of a load test come to.

use std::ffi::OsStr;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::values::{TokenRange, base_url};
use super::{Args, Scenario};
use crate::words::without_secrets;

/// Names the server where no flag does.
pub const HOST_VARIABLE: &str = "LOADGEN_HOST";

/// The server where nothing names one.
const HOST: &str = "http://127.0.0.1:8000";

/// What a run does, all defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The server, without what its URL may hold of secrets.
    pub host: String,
    /// The named load it came from.
    pub scenario: Option<Scenario>,
    /// Concurrent users.
    pub users: u32,
    /// Users started per second.
    pub spawn_rate: f64,
    /// How long all users stay active.
    #[serde(rename = "run_time_s", serialize_with = "as_seconds")]
    pub run_time: Duration,
    /// How much longer requests that are open then may take.
    #[serde(rename = "grace_s", serialize_with = "as_seconds")]
    pub grace: Duration,
    /// The longest time without text.
    #[serde(rename = "timeout_s", serialize_with = "as_seconds")]
    pub timeout: Duration,
    /// Words of each prompt; none: one prompt as it is.
    pub prompt_words: Option<u32>,
    /// `max_tokens` of each request.
    pub max_tokens: TokenRange,
    /// None: the server's.
    pub temperature: Option<f64>,
    /// Whether lengths are fixed.
    pub ignore_eos: bool,
    /// What prompts and lengths are drawn from.
    pub seed: u64,
}

impl Args {
    /// The server: that of the flag, or else of `variable`, the value of [`HOST_VARIABLE`]; an empty one is none.
    pub fn host(&self, variable: Option<&OsStr>) -> Result<Url, String> {
        let named = |name: &'static str| move |error: String| format!("{name}: {error}");
        if let Some(flag) = &self.host {
            return base_url(flag).map_err(named("--host"));
        }
        let Some(value) = variable else { return base_url(HOST).map_err(named("--host")) };
        match value.to_str().map(str::trim) {
            Some("") => base_url(HOST).map_err(named("--host")),
            Some(text) => base_url(text).map_err(named(HOST_VARIABLE)),
            None => Err(named(HOST_VARIABLE)("is not UTF-8".into())),
        }
    }

    /// The plan against `host`: flags over the scenario over the defaults.
    pub fn plan(&self, host: &Url) -> Plan {
        // Without --users a scenario is required.
        let users = self.users.or(self.scenario.map(Scenario::users)).unwrap_or(1);
        let spawn_rate = match self.scenario {
            // The scenario's own rate: it does not follow --users.
            Some(scenario) => f64::from(scenario.users()) / 5.0,
            None => (f64::from(users) / 5.0).max(1.0),
        };
        Plan {
            host: without_secrets(host.as_str()),
            scenario: self.scenario,
            users,
            spawn_rate: self.spawn_rate.unwrap_or(spawn_rate),
            run_time: self.run_time.unwrap_or(Duration::from_secs(300)),
            grace: self.grace,
            timeout: self.timeout,
            prompt_words: self.prompt_words,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            ignore_eos: self.ignore_eos,
            seed: self.seed,
        }
    }
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
