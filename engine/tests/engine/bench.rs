//! `engine-bench` as a program: the shape of its answers, the arithmetic of its ratio, and what it refuses.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use engine::synth::{Format, Preset, SynthOptions, write};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SHORT: [&str; 8] = ["--prompt", "5,20", "--batch", "1,3", "--steps", "3", "--threads", "2"];

pub(crate) fn model(temp: &TempDir, format: Format) -> PathBuf {
    let path = temp.path().join("tiny.gguf");
    write(Preset::Tiny, format, &path, SynthOptions::default()).unwrap();
    path
}

/// On the CPU, unless the arguments say otherwise.
pub(crate) fn command(model: &Path, arguments: &[&str]) -> Command {
    let device: &[&str] = if arguments.contains(&"--device") { &[] } else { &["--device", "cpu"] };
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine-bench"));
    command.arg("--model").arg(model).args(device).args(arguments);
    command
}

fn bench(model: &Path, arguments: &[&str]) -> Output {
    command(model, arguments).output().unwrap()
}

/// The one object on standard output.
pub(crate) fn json(model: &Path, arguments: &[&str]) -> Value {
    let output = bench(model, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"))
}

pub(crate) fn refused(model: &Path, arguments: &[&str], expected: &[&str]) {
    let output = bench(model, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{stderr}");
    for text in expected {
        assert!(stderr.contains(text), "no {text:?} in: {stderr}");
    }
}

#[test]
fn every_row_has_its_figures_and_they_agree_with_the_limits() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufQ8_0);
    let result = json(&model, &SHORT);
    assert_eq!(result["model"], model.to_str().unwrap());
    assert_eq!(result["threads"], 2);
    assert!(number(&result["limits"], "bandwidth_gb_s") > 0.0);
    assert!(number(&result["limits"], "compute_gop_s") > 0.0);

    let rows = result["rows"].as_array().unwrap();
    let key = |row: &Value| format!("{} {} {}", row["mode"].as_str().unwrap(), row["batch"], row["prompt"]);
    let expected = ["prefill 1 5", "prefill 1 20", "decode 1 5", "decode 1 20", "decode 3 5", "decode 3 20"];
    assert_eq!(rows.iter().map(key).collect::<Vec<_>>(), expected);
    for row in rows {
        let speed = number(row, "tokens_per_s");
        assert!(speed > 0.0 && number(row, "best_tokens_per_s") >= speed, "{row}");
        assert!(number(row, "bandwidth_share") > 0.0 && number(row, "compute_share") > 0.0, "{row}");
        for absent in ["peer_ratio", "peer_tokens_per_s", "engine_tokens_per_s", "overhead_share", "floor_share"] {
            assert!(row.get(absent).is_none(), "{row}");
        }
    }
    // Every matrix but the embedding, which gives one row of 34 bytes per 32 numbers; norms are f32; keys and
    // values of two layers with two heads of 64 halves, read for six positions and written for one.
    let (matrices, norms) = (2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256) + 512 * 256, (2 * 2 + 1) * 256);
    let expected = matrices / 32 * 34 + norms * 4 + 256 / 32 * 34 + 7 * 2 * 2 * 2 * 64 * 2;
    assert_eq!(rows[2]["bytes_per_step"], expected);
}

#[test]
fn the_ratio_is_our_best_step_by_the_peers_figure() {
    let temp = TempDir::new().unwrap();
    let seen = temp.path().join("seen");
    // It tells what it was told, and is twice as fast at a context of 20 as its figure for any.
    let peer = format!(
        "echo $MODEL $THREADS $STEPS $PROMPTS $BATCHES >> {}; echo noise; echo 'pp20: 50.0 t/s wall, 25 t per cpu-s'; \
         echo 'tg B=3: step 1 ms wall (100.00 tok/s), 2 cpu-ms'; echo 'tg B=3 at 20: step 1 ms (200.00 tok/s)'",
        seen.display()
    );
    let model = model(&temp, Format::GgufQ4KM);
    let result = json(&model, &[&SHORT[..], &["--rounds", "1", "--peer", &peer]].concat());
    let expected = [None, Some(50.0), None, None, Some(100.0), Some(200.0)];
    for (row, peer) in result["rows"].as_array().unwrap().iter().zip(expected) {
        assert_eq!(row.get("peer_tokens_per_s").and_then(Value::as_f64), peer, "{row}");
        assert_eq!(row.get("peer_ratio").is_some(), peer.is_some(), "{row}");
        if let Some(peer) = peer {
            let ratio = number(row, "best_tokens_per_s") / peer;
            assert!((number(row, "peer_ratio") / ratio - 1.0).abs() < 1e-9, "{row}");
        }
    }
    let told = std::fs::read_to_string(&seen).unwrap();
    assert_eq!(told, format!("{} 2 3 5,20 1,3\n", model.display()));
}

#[test]
fn peers_take_turns_with_us_as_often_as_there_are_rounds() {
    let temp = TempDir::new().unwrap();
    let seen = temp.path().join("seen");
    let peer = format!("echo turn >> {0}; echo \"tg B=1: ($(wc -l < {0}) tok/s)\"", seen.display());
    let few = ["--prompt", "4", "--batch", "1", "--steps", "2"];
    let result = json(&model(&temp, Format::GgufQ4KM), &[&few[..], &["--rounds", "3", "--peer", &peer]].concat());
    // It says 1, 2 and 3 in its three turns.
    assert_eq!(result["rows"][1]["peer_tokens_per_s"], 2.0);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "turn\n".repeat(3));
}

#[test]
fn through_the_whole_engine_a_step_costs_more_than_the_model() {
    let temp = TempDir::new().unwrap();
    let result = json(&model(&temp, Format::GgufF16), &[&SHORT[..], &["--engine", "--kv-type", "q8"]].concat());
    for row in result["rows"].as_array().unwrap() {
        let measured = row["mode"] == "decode" && row["prompt"] == 5;
        assert_eq!(row.get("overhead_share").is_some(), measured, "{row}");
        if measured {
            assert!(number(row, "engine_tokens_per_s") > 0.0);
            assert!((0.0..1.0).contains(&number(row, "overhead_share")), "{row}");
        }
    }
}

#[test]
fn a_prompt_is_computed_in_steps_of_the_size_asked_for() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufQ8_0);
    let few = ["--prompt", "20", "--batch", "1", "--steps", "1"];
    let bytes = |steps: &str| {
        let result = json(&model, &[&few[..], &["--step-tokens", steps]].concat());
        number(&result["rows"][0], "bytes_per_step")
    };
    // The layers are read in each of the three steps, but the output matrix in the last alone.
    assert!(bytes("7") < bytes("20") && bytes("7") > bytes("20") / 3.0);
}

#[test]
fn without_json_it_is_a_table() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufQ4KM);
    let output = bench(&model, &[&SHORT[..], &["--kv-type", "f32", "--peer", "echo 'pp5: 10 t/s'"]].concat());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let header =
        "    mode     batch    prompt     tok/s      best   MB/step    memory     8-bit  peer best     ratio  ";
    assert_eq!(stdout.lines().nth(4), Some(header), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| line.contains("decode")).count(), 4);
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_reason() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufQ4KM);
    refused(&model, &["--batch", "1,0"], &["--batch", "0 is not in 1..=1024"]);
    refused(&model, &["--prompt", "128,x"], &["--prompt", "invalid digit"]);
    refused(&model, &["--prompt", ""], &["--prompt"]);
    refused(&model, &["--prompt", "32768"], &["32768 tokens", "context of 32768"]);
    refused(&model, &["--engine", "--kv-type", "f32"], &["f16 or q8"]);
    refused(&model, &["--quantize", "fp8"], &["fp8 weights need a GPU"]);
    #[cfg(not(feature = "cuda"))]
    refused(&model, &["--device", "cuda"], &["device cuda: ", "built without CUDA"]);
    refused(&temp.path().join("none.gguf"), &[], &["cannot read", "none.gguf"]);
    refused(
        &model,
        &[&SHORT[..], &["--peer", "echo first >&2; echo no luck >&2; exit 3"]].concat(),
        &["the peer failed (exit status: 3)", "first\nno luck"],
    );
    refused(&model, &[&SHORT[..], &["--peer", "echo hello"]].concat(), &["the peer printed no figure", "hello"]);
}
