//! `engine-bench` on a GPU: what it tells of rows and of the device, and what it refuses.

use std::path::Path;

use engine::synth::Format;
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::{SHORT, command, json, model, number, refused};

const FEW: [&str; 8] = ["--device", "cuda", "--prompt", "5", "--batch", "1,3", "--steps", "2"];

fn on_gpu(model: &Path, arguments: &[&str]) -> Value {
    json(model, &[&["--device", "cuda"], arguments].concat())
}

#[test]
fn every_row_has_its_share_of_the_nearer_limit() {
    let temp = TempDir::new().unwrap();
    let result = on_gpu(&model(&temp, Format::GgufF16), &SHORT);
    let device = &result["device"];
    assert!(!device["name"].as_str().unwrap().is_empty(), "{device}");
    for dotted in ["capability", "driver"] {
        assert!(device[dotted].as_str().unwrap().split('.').all(|part| part.parse::<u32>().is_ok()), "{device}");
    }
    for fact in ["multiprocessors", "memory_bytes", "clock_mhz", "memory_clock_mhz"] {
        assert!(number(device, fact) > 0.0, "{device}");
    }
    let limits = &result["limits"];
    assert!(number(limits, "bandwidth_gb_s") > 0.0 && number(limits, "compute_tflop_s") > 0.0, "{limits}");
    assert_eq!(limits["compute_of"], "f16");
    assert!(result.get("threads").is_none() && limits.get("compute_gop_s").is_none());

    let rows = result["rows"].as_array().unwrap();
    let key = |row: &Value| format!("{} {} {}", row["mode"].as_str().unwrap(), row["batch"], row["prompt"]);
    let expected = ["prefill 1 5", "prefill 1 20", "decode 1 5", "decode 1 20", "decode 3 5", "decode 3 20"];
    assert_eq!(rows.iter().map(key).collect::<Vec<_>>(), expected);
    for row in rows {
        let (speed, floor) = (number(row, "tokens_per_s"), number(row, "floor_tokens_per_s"));
        assert!(speed > 0.0 && number(row, "best_tokens_per_s") >= speed, "{row}");
        let nearer = number(row, "bandwidth_share").max(number(row, "compute_share"));
        assert!(nearer > 0.0 && number(row, "floor_share") == nearer, "{row}");
        assert!((speed / floor / nearer - 1.0).abs() < 1e-9, "{row}");
        assert!((0.0..1.0).contains(&number(row, "host_overhead_share")), "{row}");
        assert!(row.get("overhead_share").is_none(), "{row}");
    }
    // As on the CPU, but two bytes for every number of a matrix.
    let (matrices, norms) = (2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256) + 512 * 256, (2 * 2 + 1) * 256);
    assert_eq!(rows[2]["bytes_per_step"], matrices * 2 + norms * 4 + 256 * 2 + 7 * 2 * 2 * 2 * 64 * 2);
}

#[test]
fn fp8_weights_are_held_against_the_limit_of_fp8_where_there_is_one() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufF16);
    let few = ["--prompt", "5", "--batch", "1", "--steps", "1"];
    let result = on_gpu(&model, &[&few[..], &["--quantize", "fp8"]].concat());
    let capability: f64 = result["device"]["capability"].as_str().unwrap().parse().unwrap();
    assert_eq!(result["limits"]["compute_of"], if capability >= 8.9 { "fp8" } else { "f16" });
    let wide = on_gpu(&model, &few);
    let bytes = |result: &Value| number(&result["rows"][1], "bytes_per_step");
    assert!(bytes(&result) < 0.6 * bytes(&wide), "{} of {}", bytes(&result), bytes(&wide));
}

#[test]
fn a_long_prompt_is_computed_in_several_steps() {
    let temp = TempDir::new().unwrap();
    let few = ["--prompt", "20", "--batch", "1", "--steps", "1", "--step-tokens", "9"];
    let result = on_gpu(&model(&temp, Format::GgufQ4KM), &few);
    let (prefill, decode) = (&result["rows"][0], &result["rows"][1]);
    // The output matrix is read in the last step alone.
    assert!(number(prefill, "bytes_per_step") < number(decode, "bytes_per_step"), "{result}");
    assert!(number(prefill, "tokens_per_s") > 0.0, "{result}");
}

#[test]
fn the_whole_engine_is_measured_on_the_gpu_too() {
    let temp = TempDir::new().unwrap();
    let result = json(&model(&temp, Format::GgufF16), &[&FEW[..], &["--engine", "--kv-type", "q8"]].concat());
    let rows = result["rows"].as_array().unwrap();
    for row in rows.iter().filter(|row| row["mode"] == "decode") {
        assert!(number(row, "engine_tokens_per_s") > 0.0, "{row}");
        assert!((0.0..1.0).contains(&number(row, "overhead_share")), "{row}");
    }
}

#[test]
fn a_table_names_the_device_and_shows_the_peer_beside_the_floor() {
    let temp = TempDir::new().unwrap();
    let peer = ["--rounds", "1", "--peer", "echo 'tg B=3 at 5: step 1 ms (200.00 tok/s)'"];
    let output = command(&model(&temp, Format::GgufF16), &[&FEW[..], &peer].concat()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[1].starts_with("device ") && lines[1].contains("compute capability"), "{stdout}");
    assert!(lines[2].contains(" GB/s, f16 ") && lines[2].ends_with(" TFLOP/s"), "{stdout}");
    let header = "    mode     batch    prompt     tok/s      best   MB/step    memory       f16  floor tok/s  of floor      \
                  host  peer best     ratio  ";
    assert_eq!(lines[4], header, "{stdout}");
    assert!(lines[7].contains(" 200.00 "), "{stdout}");
}

#[test]
fn without_a_gpu_it_says_so_unless_the_cpu_will_do() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufQ4KM);
    let blind = |device: &str| {
        let mut command = command(&model, &["--prompt", "4", "--batch", "1", "--steps", "1", "--device", device]);
        command.env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "-1").output().unwrap()
    };
    let refused = blind("cuda");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{stderr}");
    assert!(stderr.contains("device cuda: ") && stderr.contains("use --device cpu or auto"), "{stderr}");
    let measured = blind("auto");
    assert!(String::from_utf8(measured.stdout).unwrap().contains("\nthreads "));
}

#[test]
fn what_a_gpu_cannot_do_is_refused() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp, Format::GgufQ4KM);
    refused(&model, &[&FEW[..], &["--kv-type", "f32"]].concat(), &["f16 or q8"]);
    refused(&model, &["--device", "cuda", "--prompt", "32768"], &["context of 32768"]);
}
