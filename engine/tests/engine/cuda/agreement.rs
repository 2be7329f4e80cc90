//! Models of every format give the CPU's logprobs, whatever their weights, keys and values are stored as.

use std::{path::PathBuf, sync::Arc};

use engine::{
    KvType, Quantization,
    kernels::cpu::{KvDtype, Threads},
    loader::open_weights,
    model::mistral,
    synth::{Format, Preset, SynthOptions, write},
};
use tempfile::TempDir;

use super::open;
use crate::goldens::{Bench, log_softmax};

/// Where weights are quantised, the CPU rounds rows to eight bits, too, and the GPU does not.
const ROUNDED: f32 = 4e-2;
/// Tokens of the prompt, and after it.
const PROMPT: usize = 90;
const ANSWER: usize = 6;

fn synthetic(temp: &TempDir, format: Format) -> PathBuf {
    let path = temp.path().join(if format == Format::Safetensors { "model" } else { "model.gguf" });
    write(Preset::Tiny, format, &path, SynthOptions::default()).unwrap();
    path
}

fn cpu(path: &std::path::Path, quantize: Option<Quantization>, kv_type: KvType) -> Bench {
    let (config, weights) = open_weights(path).unwrap();
    let threads = Arc::new(Threads::new(1).unwrap());
    let placed = mistral::Placed::new(&config, &weights, quantize, threads).unwrap();
    Bench::of(if kv_type == KvType::Q8 { placed.with_kv_dtype(KvDtype::Q8) } else { placed }, 1)
}

/// The largest difference of a logprob over a prompt, cut in two, and an answer.
fn worst(mut ours: Bench, mut theirs: Bench) -> f32 {
    let token = |position: usize| (position * 7919 % 500) as u32;
    let parts = [0..PROMPT - 20, PROMPT - 20..PROMPT].into_iter().chain((PROMPT..PROMPT + ANSWER).map(|at| at..at + 1));
    ours.set_prompts([PROMPT].into_iter());
    let mut worst = 0f32;
    for part in parts {
        let tokens: Vec<u32> = part.map(token).collect();
        for (ours, theirs) in ours.step(&[(0, &tokens)]).iter().zip(theirs.step(&[(0, &tokens)])) {
            let (ours, theirs) = (log_softmax(ours), log_softmax(&theirs));
            let differences = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs());
            worst = differences.fold(worst, |worst, difference| if difference > worst { difference } else { worst });
            assert!(ours.iter().all(|logprob| logprob.is_finite()));
        }
    }
    worst
}

fn check(format: Format, quantize: Option<Quantization>, kv_type: KvType, tolerance: f32) {
    let temp = TempDir::new().unwrap();
    let path = synthetic(&temp, format);
    // The CPU has no fp8: there it is compared with the weights as they were.
    let on_cpu = quantize.filter(|&quantize| quantize != Quantization::Fp8);
    let worst = worst(open(&path, 1, quantize, kv_type), cpu(&path, on_cpu, kv_type));
    assert!(worst <= tolerance, "{format:?} {quantize:?} {kv_type:?}: a logprob is off by {worst}");
    assert!(worst > 0.0, "they do not sum in the same order");
}

#[test]
fn bf16() {
    check(Format::Safetensors, None, KvType::F16, 2e-2);
}

#[test]
fn f16() {
    check(Format::GgufF16, None, KvType::F16, 2e-3);
}

#[test]
fn q8_0() {
    check(Format::GgufQ8_0, None, KvType::F16, ROUNDED);
}

#[test]
fn q4_k_m() {
    check(Format::GgufQ4KM, None, KvType::F16, ROUNDED);
}

#[test]
fn quantised_while_loading() {
    check(Format::Safetensors, Some(Quantization::Q4K), KvType::F16, ROUNDED);
    check(Format::Safetensors, Some(Quantization::Q8_0), KvType::F16, ROUNDED);
    check(Format::Safetensors, Some(Quantization::Fp8), KvType::F16, 0.2);
}

#[test]
fn keys_and_values_of_eight_bits() {
    check(Format::Safetensors, None, KvType::Q8, 2e-2);
    check(Format::GgufQ4KM, None, KvType::Q8, ROUNDED);
}
