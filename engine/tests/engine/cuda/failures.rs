//! A GPU that fails or is too small: what the emulator is told to play, as no other does so on purpose.

use std::process::Command;

use engine::{Device, DeviceChoice, EngineConfig, Event, Generation, GenerationRequest, Sampling, SubmitError};

use super::gpu;
use crate::determinism::start_on;

/// Tokens of an answer: each takes dozens of kernels.
const TOKENS: usize = 100;
/// Set for the process that has the failing device.
const CHILD: &str = "ENGINE_TEST_ON_FAILING_DEVICE";

/// Runs the test of that name again, in a process whose device is as `environment` says; gives what it printed.
fn again(test: &str, environment: (&str, &str)) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env(environment.0, environment.1)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// A real one does not fail on purpose.
fn is_emulated() -> bool {
    gpu().info().name.starts_with("Emulated")
}

fn request(prompt: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: vec![prompt; 9],
        max_tokens: TOKENS as u32,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        cache_salt: 0,
        deadline: None,
        tag: 0,
    }
}

/// Tokens of an answer, and its failure.
async fn outcome(mut generation: Generation) -> (usize, Option<String>) {
    let mut tokens = 0;
    while let Some(event) = generation.next().await {
        match event {
            Event::Token(_) => tokens += 1,
            Event::Finished(_) => return (tokens, None),
            Event::Failed(failure) => return (tokens, Some(failure.message)),
        }
    }
    panic!("the stream ended without an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_faults_ends_all_requests_and_the_engine_says_so() {
    if !is_child() {
        if is_emulated() {
            let name = "cuda::failures::a_kernel_that_faults_ends_all_requests_and_the_engine_says_so";
            // Well after the start, and long before the answers end, however many of them share their steps.
            again(name, ("EMULATOR_FAIL_LAUNCH", "1000"));
        }
        return;
    }
    let engine = start_on(DeviceChoice::Cuda, "tied_bf16", 100, EngineConfig::default());
    let running: Vec<_> = (30..33).map(|prompt| engine.submit(request(prompt)).unwrap()).collect();
    let mut failures = 0;
    for generation in running {
        let (tokens, failure) = outcome(generation).await;
        failures += usize::from(failure.is_some());
        assert!(tokens < TOKENS || failure.is_none());
    }
    assert!(failures > 0, "none of them met the fault");
    // What comes later is refused at once: there is nothing to compute with.
    engine.shutdown();
    assert!(engine.has_stopped());
    assert_eq!(engine.submit(request(40)).err(), Some(SubmitError::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_room_is_an_error() {
    if !is_child() {
        if is_emulated() {
            let name = "cuda::failures::a_device_without_room_is_an_error";
            // The smallest that holds the context's tables, and not the model beside them.
            again(name, ("EMULATOR_MEMORY", "20000000"));
        }
        return;
    }
    let Ok(Device::Cuda(gpu)) = DeviceChoice::Cuda.open() else { panic!("there is a device") };
    assert!(gpu.free_memory().unwrap() <= 20_000_000);
    let started = std::panic::catch_unwind(|| start_on(DeviceChoice::Cuda, "tied_bf16", 100, EngineConfig::default()));
    let message = started.expect_err("it cannot fit").downcast_ref::<String>().cloned().unwrap();
    assert!(message.contains("OutOfMemory"), "{message}");
}
