//! The real binary: exit status, report, JSON and JSONL that say the same.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadgen::record::{RequestRecord, Row};
use serde_json::Value;

use crate::mock::{Behaviour, Mock, QUICK};

fn command(host: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(flags).env_remove("RUST_LOG").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    if !flags.contains(&"--host") {
        command.args(["--host", host]);
    }
    command
}

async fn run(host: &str, flags: &[&str]) -> Output {
    let mut command = command(host, flags);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The smallest value that at least `quantile` of all do not exceed.
fn nearest_rank(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() as f64 * quantile).ceil() as usize).max(1) - 1]
}

/// `figures`, a distribution in the report, must be what `values` come to.
fn assert_distribution(name: &str, figures: &Value, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    assert_eq!(figures["count"], values.len(), "{name}");
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let expected = [
        ("mean", mean),
        ("p50", nearest_rank(&values, 0.50)),
        ("p90", nearest_rank(&values, 0.90)),
        ("p95", nearest_rank(&values, 0.95)),
        ("p99", nearest_rank(&values, 0.99)),
        ("max", values[values.len() - 1]),
    ];
    for (field, expected) in expected {
        let reported = figures[field].as_f64().unwrap();
        assert!((reported - expected).abs() <= expected * 2e-3 + 2e-3, "{name} {field}: {reported} is not {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_can_be_recomputed_from_the_records() {
    let mock = Mock::start(QUICK).await;
    let folder = tempfile::tempdir().unwrap();
    let (json_path, records_path) = (folder.path().join("report.json"), folder.path().join("records.jsonl"));
    let [json_flag, records_flag] = [&json_path, &records_path].map(|path| path.to_str().unwrap());
    let flags =
        ["--users", "4", "--spawn-rate", "8", "--run-time", "2s", "--json", json_flag, "--records", records_flag];
    let output = run(&mock.url, &flags).await;
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["TTFT", "TPOT", "Throughput", "Verdicts", "good", "prefill", "network + client", "Errors      none"] {
        assert!(printed.contains(part), "no {part:?} in:\n{printed}");
    }

    let report = json(&json_path);
    let lines = std::fs::read_to_string(&records_path).unwrap();
    let records: Vec<RequestRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), mock.seen().len());
    // The window begins when the last user was ready for the first time, and lasts for the run time.
    let start = (0..4)
        .map(|user| {
            records.iter().filter(|record| record.user == user).map(|record| record.scheduled_us).min().unwrap()
        })
        .max()
        .unwrap();
    assert_eq!(report["window"]["start_us"], start);
    assert_eq!(report["window"]["end_us"], start + 2_000_000);
    assert_eq!(report["window"]["ramp_excluded"], true);
    let counted: Vec<&RequestRecord> = records.iter().filter(|record| record.sent_us >= start).collect();
    assert_eq!(report["window"]["excluded_requests"], records.len() - counted.len());
    assert!(counted.len() < records.len() && !counted.is_empty());
    assert_eq!(report["requests"]["succeeded"], counted.len());

    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let of = |figure: &dyn Fn(&RequestRecord) -> f64| counted.iter().map(|record| figure(record)).collect::<Vec<_>>();
    let latencies = &report["latencies_ms"];
    assert_distribution("ttft", &latencies["ttft"], of(&|record| ms(record.ttft().unwrap())));
    assert_distribution("tpot", &latencies["tpot"], of(&|record| ms(record.tpot().unwrap())));
    assert_distribution("latency", &latencies["latency"], of(&|record| ms(record.latency())));
    let from_schedule = of(&|record| (record.end_us - record.scheduled_us) as f64 / 1e3);
    assert_distribution("latency from schedule", &latencies["latency_from_schedule"], from_schedule);
    let gaps = counted.iter().flat_map(|record| record.gaps().map(ms)).collect();
    assert_distribution("gap", &latencies["inter_token_gap"], gaps);

    let inside = |at: u64| (start..start + 2_000_000).contains(&at);
    let ended = records.iter().filter(|record| inside(record.end_us)).count();
    let tokens = records.iter().flat_map(|record| &record.chunks).filter(|chunk| inside(chunk.at_us)).count();
    assert_eq!(report["throughput"]["requests_per_s"], ended as f64 / 2.0);
    assert!((report["throughput"]["output_tokens_per_s"].as_f64().unwrap() - tokens as f64 / 2.0).abs() < 1e-6);
    assert_eq!(report["tokens"]["output"], 8 * counted.len());
    assert_eq!(report["tokens"]["per_event"], 1.0);
    assert_eq!(report["traces_joined"], counted.len());

    // Few enough that all are kept, whatever the window.
    assert_eq!(report["rows_drawn_from"], records.len());
    let rows: Vec<Row> = serde_json::from_value(report["rows"].clone()).unwrap();
    let mut expected: Vec<Row> = records.iter().map(Row::from).collect();
    expected.sort_by_key(|row| row.sent_us);
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_have_as_many_words_as_asked_for() {
    let mock = Mock::start(QUICK).await;
    run(&mock.url, &["--users", "1", "--run-time", "1s", "--prompt-words", "400"]).await;
    let prompts: Vec<String> =
        mock.seen().iter().map(|seen| seen.body["prompt"].as_str().unwrap().to_owned()).collect();
    assert!(prompts.len() > 1 && prompts.iter().all(|prompt| prompt.split_whitespace().count() == 400));
    assert_ne!(prompts[0], prompts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_the_server_says() {
    let mock = Mock::start(QUICK).await;
    let output =
        run(&mock.url, &["--users", "2", "--spawn-rate", "10", "--run-time", "2s", "--quiet", "--json", "-"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON and nothing else");
    assert!(text(&output.stderr).contains("Time to first token"), "the table goes to stderr");
    assert_eq!(report["schema"], "loadgen.report/1");
    assert_eq!(report["config"]["users"], 2);
    assert_eq!(report["interrupted"], false);
    let phases = &report["phases_ms"];
    let rows = phases["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["phase"].as_str().unwrap()).collect();
    assert_eq!(names, ["receive", "prefill", "decode", "network + client"]);
    let means: Vec<f64> = rows[..3].iter().map(|row| row["mean"].as_f64().unwrap().round()).collect();
    assert_eq!(means, [0.0, 20.0, 35.0]);
    let shares: f64 = rows.iter().map(|row| row["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-3, "the shares sum to {shares}");
    let check = &report["server_check_ms"];
    assert_eq!(check["server_requests"], mock.seen().len());
    assert_eq!(check["client_requests"], check["server_requests"]);
    assert!(check["client_mean_ttft"].as_f64().unwrap() >= check["server_mean_ttft"].as_f64().unwrap());
    assert!(report["client_cost_ms"]["round_trip_idle"]["count"] == 100);
    assert!(report["client_cost_ms"]["metrics_read"]["count"].as_u64().unwrap() > 0);
    assert_eq!(report["server"], Value::Null, "the mock publishes nothing of its inside");
    assert_eq!(report["client_spans"], Value::Null, "no collector is named");
    assert!(report["client_cost_ms"]["wake_up_lag"]["count"].as_u64().unwrap() > 0);
    let grades: Vec<&str> =
        report["verdicts"].as_array().unwrap().iter().map(|verdict| verdict["metric"].as_str().unwrap()).collect();
    assert_eq!(grades, ["ttft", "tpot", "tpot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_sends_the_same_prompts() {
    let mut prompts = Vec::new();
    for seed in ["1", "1", "2"] {
        let mock = Mock::start(QUICK).await;
        run(&mock.url, &["--users", "1", "--run-time", "1s", "--max-tokens", "5..500", "--seed", seed]).await;
        let bodies: Vec<Value> = mock.seen().into_iter().map(|seen| seen.body).take(4).collect();
        assert!(bodies.iter().all(|body| (5..=500).contains(&body["max_tokens"].as_u64().unwrap())));
        prompts.push(bodies);
    }
    assert_eq!(prompts[0], prompts[1]);
    assert_ne!(prompts[0], prompts[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_success_fails_and_names_the_errors() {
    let mock = Mock::start(Behaviour::Refuse).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let output =
        run(&mock.url, &["--users", "2", "--spawn-rate", "10", "--run-time", "1s", "--json", path.to_str().unwrap()])
            .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no request succeeded"));
    assert!(text(&output.stdout).contains("the queue is full"));
    let report = json(&path);
    assert_eq!(report["errors"][0]["class"], "http_503");
    assert_eq!(report["errors"][0]["count"], report["requests"]["failed"]);
    assert_eq!(report["latencies_ms"]["latency"], Value::Null);
    // A user that is refused pauses: a second of two users is some twenty requests, not thousands.
    assert!((2..100).contains(&mock.seen().len()), "{} requests", mock.seen().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_the_users_and_reports_what_there_is() {
    let slow = Behaviour::Answer { ttft: Duration::from_millis(5), gap: Duration::from_secs(1), tokens: 600 };
    for (behaviour, status) in [(QUICK, 0), (slow, 1)] {
        let mock = Mock::start(behaviour).await;
        let mut child = command(&mock.url, &["--users", "2", "--spawn-rate", "10", "--json", "-", "--quiet"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(|| mock.seen().iter().filter(|seen| !seen.sent.is_empty()).count() >= 2).await;
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let (code, report) = tokio::task::spawn_blocking(move || {
            let mut output = String::new();
            child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
            (child.wait().unwrap().code(), serde_json::from_str::<Value>(&output).unwrap())
        })
        .await
        .unwrap();
        assert_eq!(code, Some(status), "{behaviour:?}");
        assert_eq!(report["interrupted"], true);
        assert_eq!(report["requests"]["failed"], 0, "what we cut is no failure: {}", report["errors"]);
    }
}

async fn wait_for(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "did not happen within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_an_error_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = run(&url, &["--users", "1"]).await;
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("cannot reach") && message.contains(&url) && message.contains("refused"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_is_named_before_the_run() {
    let mock = Mock::start(QUICK).await;
    for flag in ["--records", "--json"] {
        let output = run(&mock.url, &["--users", "1", flag, "/nonexistent/file"]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(&format!("{flag} /nonexistent/file")), "{}", text(&output.stderr));
    }
    assert!(mock.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_flags_are_refused_with_their_names() {
    for (flags, named) in [
        (vec![], "--users"),
        (vec!["--users", "0"], "--users"),
        (vec!["--users", "1", "--run-time", "soon"], "--run-time"),
        (vec!["--users", "1", "--host", "nowhere"], "--host"),
        (vec!["--scenario", "extreme"], "baseline"),
    ] {
        let output = run("http://127.0.0.1:1", &flags).await;
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(text(&output.stderr).contains(named), "{flags:?}: {}", text(&output.stderr));
    }
}
