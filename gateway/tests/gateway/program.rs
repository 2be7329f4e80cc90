//! The `gateway` program itself: exit codes, signals, configuration.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Output, Stdio},
};

use crate::support::config;

fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    gateway().args(arguments).output().unwrap()
}

/// Reads log lines until one contains `text`.
fn read_until(lines: &mut impl BufRead, text: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the log ended before `{text}`");
        if line.contains(text) {
            return line;
        }
    }
}

fn terminate(child: &Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_missing_model_is_exit_code_1_with_its_name() {
    let output = run(&["--port", "0", "--model", "/nowhere/at-all.gguf"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("/nowhere/at-all.gguf") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn the_configuration_can_be_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "[engine]\nmax_batch = 3\n").unwrap();
    let file = file.to_str().unwrap();

    assert!(run(&["--config", file, "config", "check"]).status.success());
    let output = gateway().args(["--config", file, "config", "show"]).env("GATEWAY_API_KEYS", "hush,hush2").output();
    let shown = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(shown.contains("max_batch = 3") && shown.contains("port = 8000"), "{shown}");
    assert!(shown.contains("2 redacted") && !shown.contains("hush"), "{shown}");
    // What the engine decides by its device is not there until it is set.
    assert!(shown.contains("gpu_memory_utilization = 0.9\n") && !shown.contains("max_step_tokens"), "{shown}");
    let variables = [("GATEWAY_GPU_MEMORY_UTILIZATION", "0.7"), ("GATEWAY_MAX_STEP_TOKENS", "512")];
    let output = gateway().args(["config", "show"]).envs(variables).env("GATEWAY_QUANTIZE", "fp8").output();
    let shown = String::from_utf8(output.unwrap().stdout).unwrap();
    for line in ["gpu_memory_utilization = 0.7", "max_step_tokens = 512", "quantize = \"fp8\""] {
        assert!(shown.lines().any(|shown| shown == line), "no `{line}` in\n{shown}");
    }

    std::fs::write(file, "[engine]\nmax_batch = 0\n").unwrap();
    let output = run(&["--config", file, "config", "check"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("gateway.toml") && stderr.contains("engine.max_batch"), "{stderr}");
}

#[test]
fn sigterm_drains_and_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let model = config(folder.path()).model.name;
    let mut child = gateway()
        .args(["--port", "0", "--kv-memory", "16MiB", "--model", &model])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    assert!(read_until(&mut log, "listening").contains("127.0.0.1"));
    read_until(&mut log, "ready in");
    terminate(&child);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
}
