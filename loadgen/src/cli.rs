//! The command line, and the plan that it comes to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use url::Url;

/// Measures a streaming LLM server under load: time to first token, time per output token, throughput.
///
/// Each user sends a prompt to POST /generate, reads the answer as it streams, and sends the next. With
/// OTEL_EXPORTER_OTLP_ENDPOINT set, each request's span is exported there: the parent of the server's. Exit
/// status: 0 if any request succeeded, 1 if none did or the run could not start, 2 for a bad flag.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// Without one, a load test is run
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The load test
    #[command(flatten)]
    pub run: Args,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell where the time of requests went, and what holds the server back
    Analyze(AnalyzeArgs),
}

/// The flags of `analyze`.
#[derive(Debug, clap::Args)]
pub struct AnalyzeArgs {
    /// Files of --json or --records, spans in OTLP's JSON, or the address of Jaeger, such as http://localhost:16686;
    /// several are joined by trace id
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<String>,

    /// The server's service.name in spans
    #[arg(long, value_name = "NAME", default_value = "llm-inference-api")]
    pub service: String,

    /// The most requests to take in
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub limit: u32,

    /// How far Jaeger is asked to look back, if no other input says when the requests were
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = run_time)]
    pub window: Duration,

    /// Write the analysis as JSON; - for stdout (the text then goes to stderr)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The flags of a load test.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Concurrent users
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), required_unless_present = "scenario")]
    pub users: Option<u32>,

    /// A named load for 5 minutes; other flags override its parts
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<Scenario>,

    /// Users started per second [default: a fifth of the users, at least 1]
    #[arg(long, value_name = "R", value_parser = positive_rate)]
    pub spawn_rate: Option<f64>,

    /// How long all users stay active, such as 30s, 5m or 1h30m [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = run_time)]
    pub run_time: Option<Duration>,

    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", value_parser = base_url)]
    pub host: Url,

    /// Tokens to ask for: a number, or a range such as 16..128 to draw from
    #[arg(long, value_name = "N", default_value = "64")]
    pub max_tokens: TokenRange,

    /// Words of each prompt, put together from several [default: one prompt as it is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt_words: Option<u32>,

    /// Sampling temperature [default: the server's]
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f64>,

    /// Ask the server to generate all of --max-tokens
    #[arg(long)]
    pub ignore_eos: bool,

    /// Which prompts and lengths are drawn, and in which order
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Give a request up when no text arrived for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,

    /// Write the report as JSON; - for stdout (the table then goes to stderr)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write one JSON line per request: every figure can be recomputed from these
    #[arg(long, value_name = "FILE")]
    pub records: Option<PathBuf>,

    /// No progress while running
    #[arg(short, long)]
    pub quiet: bool,
}

/// A named load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// 10 users, 2 started per second
    Baseline,
    /// 25 users, 5 started per second
    Medium,
    /// 50 users, 10 started per second
    High,
}

impl Scenario {
    fn users(self) -> u32 {
        match self {
            Self::Baseline => 10,
            Self::Medium => 25,
            Self::High => 50,
        }
    }
}

/// What a run does, all defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The server.
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
    /// The plan: flags over the scenario over the defaults.
    pub fn plan(&self) -> Plan {
        // Without --users a scenario is required.
        let users = self.users.or(self.scenario.map(Scenario::users)).unwrap_or(1);
        let spawn_rate = match self.scenario {
            // The scenario's own rate: it does not follow --users.
            Some(scenario) => f64::from(scenario.users()) / 5.0,
            None => (f64::from(users) / 5.0).max(1.0),
        };
        Plan {
            host: self.host.as_str().trim_end_matches('/').to_owned(),
            scenario: self.scenario,
            users,
            spawn_rate: self.spawn_rate.unwrap_or(spawn_rate),
            run_time: self.run_time.unwrap_or(Duration::from_secs(300)),
            timeout: self.timeout,
            prompt_words: self.prompt_words,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            ignore_eos: self.ignore_eos,
            seed: self.seed,
        }
    }
}

/// From how many to how many tokens, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenRange {
    /// The fewest.
    pub from: u32,
    /// The most.
    pub to: u32,
}

impl FromStr for TokenRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.parse::<u32>().map_err(|error| format!("{part:?}: {error}"));
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(text)?, number(text)?),
        };
        if from == 0 || from > to {
            return Err("must be at least 1, and a range must not run backwards".into());
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for TokenRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { from, to } if from == to => write!(formatter, "{from}"),
            Self { from, to } => write!(formatter, "{from}..{to}"),
        }
    }
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Hours, minutes and seconds in that order, such as `1h30m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 30s, 5m or 1h30m");
    let mut total = 0_u64;
    let mut rest = text;
    let mut larger = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let (unit, length) = match rest[digits..].chars().next() {
            Some('h') => (3600, 1),
            Some('m') => (60, 1),
            Some('s') => (1, 1),
            None if larger == u64::MAX => (1, 0),
            _ => return Err(wrong()),
        };
        if unit >= larger {
            return Err(wrong());
        }
        larger = unit;
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + length..];
    }
    match total {
        0 => Err("must be at least one second".into()),
        total => Ok(Duration::from_secs(total)),
    }
}

fn run_time(text: &str) -> Result<Duration, String> {
    let limit = Duration::from_secs(7 * 24 * 3600);
    duration(text).and_then(|time| if time <= limit { Ok(time) } else { Err("must be at most a week".into()) })
}

fn positive_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number of users per second from 0.01 to 10000".into()),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0 on".into()),
    }
}

fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; expected such as http://127.0.0.1:8000"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with http:// or https:// and name a host".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".into());
    }
    Ok(url)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn plan(flags: &[&str]) -> Plan {
        Cli::try_parse_from([&["loadgen"], flags].concat()).unwrap().run.plan()
    }

    #[test]
    fn scenarios_are_named_loads_and_flags_override_them() {
        for (name, users, rate) in [("baseline", 10, 2.0), ("medium", 25, 5.0), ("high", 50, 10.0)] {
            let plan = plan(&["--scenario", name]);
            assert_eq!((plan.users, plan.spawn_rate, plan.run_time.as_secs()), (users, rate, 300));
        }
        let plan = plan(&["--scenario", "high", "--users", "4", "--run-time", "1m30s", "--max-tokens", "16..128"]);
        assert_eq!((plan.users, plan.spawn_rate, plan.run_time.as_secs()), (4, 10.0, 90));
        assert_eq!(plan.max_tokens, TokenRange { from: 16, to: 128 });
    }

    #[test]
    fn a_spawn_rate_follows_from_the_users() {
        assert_eq!(plan(&["-u", "50"]).spawn_rate, 10.0);
        assert_eq!(plan(&["-u", "1"]).spawn_rate, 1.0);
    }

    #[test]
    fn bad_flags_are_refused() {
        let bad: [&[&str]; 15] = [
            &[],
            &["--users", "0"],
            &["--users", "many"],
            &["--users", "1", "--spawn-rate", "0"],
            &["--users", "1", "--spawn-rate", "NaN"],
            &["--users", "1", "--run-time", "0s"],
            &["--users", "1", "--run-time", "5m1h"],
            &["--users", "1", "--run-time", "soon"],
            &["--users", "1", "--run-time", "99999999999999999999h"],
            &["--users", "1", "--host", "localhost:8000"],
            &["--users", "1", "--host", "ftp://host"],
            &["--users", "1", "--max-tokens", "9..3"],
            &["--users", "1", "--max-tokens", "0"],
            &["--users", "1", "--prompt-words", "0"],
            &["--scenario", "extreme"],
        ];
        for flags in bad {
            assert!(Cli::try_parse_from([&["loadgen"], flags].concat()).is_err(), "{flags:?} should be refused");
        }
    }

    #[test]
    fn a_load_test_needs_no_sub_command_and_takes_none() {
        let parse = |flags: &[&str]| Cli::try_parse_from([&["loadgen"], flags].concat());
        let Some(Command::Analyze(args)) = parse(&["analyze", "a.json", "http://jaeger"]).unwrap().command else {
            panic!("not parsed as a sub-command");
        };
        assert_eq!(args.inputs, ["a.json", "http://jaeger"]);
        assert_eq!((args.limit, args.window.as_secs()), (100_000, 3600));
        assert!(parse(&["--users", "1"]).unwrap().command.is_none());
        for wrong in [&["analyze"][..], &["--users", "1", "analyze", "a"], &["analyze", "a", "--users", "1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_hours_minutes_seconds() {
        for (text, seconds) in [("45", 45), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
    }
}
