//! The command line, and the plan that it comes to.

mod plan;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

pub use plan::{HOST_VARIABLE, Plan};
pub use values::TokenRange;
use values::{duration, grace, positive_rate, run_time, temperature};

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

    /// How much longer a request may take that is open when the run time is over; then it is cut, and in no figure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = grace)]
    pub grace: Duration,

    /// The server [env: LOADGEN_HOST] [default: http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    pub host: Option<String>,

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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn plan(flags: &[&str]) -> Plan {
        let args = Cli::try_parse_from([&["loadgen"], flags].concat()).unwrap().run;
        args.plan(&args.host(None).unwrap())
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
        let bad: [&[&str]; 13] = [
            &[],
            &["--users", "0"],
            &["--users", "many"],
            &["--users", "1", "--spawn-rate", "0"],
            &["--users", "1", "--spawn-rate", "NaN"],
            &["--users", "1", "--run-time", "0s"],
            &["--users", "1", "--run-time", "5m1h"],
            &["--users", "1", "--run-time", "soon"],
            &["--users", "1", "--run-time", "99999999999999999999h"],
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
    fn the_flag_names_the_server_or_else_the_variable() {
        let host = |flags: &[&str], variable: Option<&str>| {
            let args = Cli::try_parse_from([&["loadgen", "--users", "1"], flags].concat()).unwrap().run;
            args.host(variable.map(OsStr::new)).map(|host| args.plan(&host).host)
        };
        let table: [(&[&str], Option<&str>, &str); 6] = [
            (&[], None, "http://127.0.0.1:8000"),
            (&[], Some(""), "http://127.0.0.1:8000"),
            (&[], Some("  "), "http://127.0.0.1:8000"),
            (&[], Some("http://gateway:8000/"), "http://gateway:8000"),
            (&["--host", "http://[::1]:9"], Some("http://gateway:8000"), "http://[::1]:9"),
            (&["--host", "https://me:secret@h/base/"], None, "https://h/base"),
        ];
        for (flags, variable, expected) in table {
            assert_eq!(host(flags, variable).as_deref(), Ok(expected), "{flags:?} {variable:?}");
        }
        for wrong in
            ["localhost:8000", "ftp://me:secret@h", "http://", "http://me:secret@h/?key=secret", "http://h:secret"]
        {
            for (flags, variable, name) in [(&["--host", wrong][..], None, "--host"), (&[], Some(wrong), HOST_VARIABLE)]
            {
                let refused = host(flags, variable).unwrap_err();
                assert!(refused.starts_with(name) && !refused.contains("secret"), "{refused}");
            }
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
