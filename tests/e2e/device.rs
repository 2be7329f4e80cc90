//! Where the gateway computes, as built by default: without CUDA kernels, on any machine.

use serde_json::Value;
use tests::gateway::Launch;

use crate::requests::body;

const WITHOUT_KERNELS: &str = "this binary was built without CUDA kernels (feature cuda)";

#[tokio::test]
async fn a_gpu_that_cannot_be_had_is_an_error_with_its_reason() -> anyhow::Result<()> {
    for (flags, reason) in [
        (vec![("--device", "cuda")], format!("error: device cuda: {WITHOUT_KERNELS}; use --device cpu or auto")),
        (
            vec![("--device", "auto"), ("--quantize", "fp8")],
            "error: fp8 weights need a GPU: quantise to q8_0 on the CPU".to_owned(),
        ),
    ] {
        let launch = flags.iter().fold(Launch::default(), |launch, (name, value)| launch.flag(name, value));
        let (code, printed) = launch.end().await?;
        assert_eq!(code, Some(1), "{flags:?}: {printed}");
        assert!(printed.lines().any(|line| line == reason), "{flags:?}: {printed}");
        assert!(!printed.contains("panicked"), "{flags:?}: {printed}");
    }
    Ok(())
}

#[tokio::test]
async fn left_open_it_serves_on_the_cpu_and_says_so_once() -> anyhow::Result<()> {
    let gateway = Launch::default().flag("--device", "auto").start().await?;
    let answer: Value = gateway.generate(&body(3)).send().await?.json().await?;
    assert_eq!(answer["usage"]["completion_tokens"], 3, "{answer}");
    // Steps of the size that suits a CPU, and no memory of a GPU.
    let series = ["engine_step_token_limit", "hw_gpu_memory_usage_bytes", "hw_gpu_memory_utilization_ratio"];
    assert_eq!(gateway.metrics(series).await?, [Some(128.0), None, None]);
    let (code, log) = gateway.stop_and_read().await?;
    assert_eq!(code, Some(0));
    let log: Vec<Value> = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let says = |what: &'static str| {
        log.iter().filter(move |line| line["message"].as_str().is_some_and(|text| text.starts_with(what)))
    };
    let reasons: Vec<_> = says("the CPU computes").map(|line| &line["reason"]).collect();
    assert_eq!(reasons, [WITHOUT_KERNELS]);
    let ready: Vec<_> = says("ready in").map(|line| (&line["device"], line.get("gpu"))).collect();
    assert_eq!(ready, [(&Value::from("cpu"), None)]);
    Ok(())
}
