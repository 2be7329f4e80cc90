//! What a scrape shows.

use std::time::Duration;

use engine::{DeviceInfo, DeviceMemory, EngineStats, Stamps, Usage};
use http::HeaderMap;

use super::{
    Collector, LIMITS, ScriptedExporter,
    steps::{FACTS, report},
    telemetry,
};
use crate::{
    config::TelemetryConfig,
    ledger::{Facts, Ledger, Outcome},
    telemetry::{ClosedRequest, Telemetry, engine_state::WatchedEngine},
};

fn request(telemetry: &Telemetry, outcome: Outcome) {
    let started = Ledger::start();
    let at = |millis| Some(started.started + Duration::from_millis(millis));
    let ledger = Ledger {
        received: at(1),
        tokenized: at(2),
        stamps: Stamps {
            queued: at(2),
            scheduled: at(3),
            first_token: at(13),
            last_token: at(63),
            usage: Usage { prompt_tokens: 5, completion_tokens: 6, cached_tokens: 0 },
            ..Stamps::default()
        },
        decoded: at(63),
        closed: at(64),
        ..started
    };
    let trace = telemetry.begin("POST", "/generate", &HeaderMap::new(), &ledger);
    let facts = Facts { model: Some("demo".to_owned()), ..Facts::default() };
    telemetry.finish(trace, ClosedRequest { ledger: &ledger, facts: &facts, outcome });
}

fn stats() -> EngineStats {
    EngineStats {
        kv_blocks_used: 3,
        kv_blocks_total: 12,
        prefix_cache_lookups: 30,
        prefix_cache_hits: 16,
        speculative_proposed: 9,
        speculative_accepted: 4,
        ..EngineStats::default()
    }
}

#[test]
fn a_scrape_shows_requests_steps_and_the_engine() {
    let telemetry = Telemetry::init(&TelemetryConfig::default()).unwrap();
    request(&telemetry, Outcome::Stop);
    request(&telemetry, Outcome::Cancelled);
    let open = telemetry.begin("POST", "/generate", &HeaderMap::new(), &Ledger::start());
    let tag = telemetry.tag(&open);
    telemetry.inter_token(Duration::from_millis(3));
    let mut observer = telemetry.step_observer();
    let report = report(7, &[tag.number()]);
    observer.begun(&report.start);
    observer.computed(&report);
    let memory = || Some(DeviceMemory { used: 3000, total: 4000 });
    telemetry.watch(WatchedEngine { facts: FACTS, stats: Box::new(stats), memory: Box::new(memory) });
    let text = telemetry.render_prometheus();
    let labels = r#"gen_ai_operation_name="text_completion",gen_ai_provider_name="local",gen_ai_request_model="demo""#;
    for line in [
        &format!("gen_ai_server_time_to_first_token_seconds_count{{{labels}}} 1"),
        &format!("gen_ai_server_time_to_first_token_seconds_sum{{{labels}}} 0.013"),
        &format!("gen_ai_server_time_per_output_token_seconds_sum{{{labels}}} 0.01"),
        &format!("gen_ai_server_request_duration_seconds_count{{{labels}}} 1"),
        &format!(r#"gen_ai_server_request_duration_seconds_count{{error_type="client_disconnected",{labels}}} 1"#),
        r#"gateway_phase_duration_seconds_count{phase="decode"} 2"#,
        r#"gateway_phase_duration_seconds_bucket{phase="decode",le="0.05"} 2"#,
        "gateway_inter_token_duration_seconds_sum 0.003",
        r#"gateway_requests_active{state="running"} 1"#,
        r#"gateway_requests_active{state="waiting"} 0"#,
        r#"gateway_requests_finished_total{reason="stop"} 1"#,
        r#"gateway_requests_finished_total{reason="overloaded"} 0"#,
        r#"gateway_tokens_total{direction="output"} 12"#,
        "engine_batch_size_sum 3",
        r#"engine_step_tokens_sum{kind="prefill"} 40"#,
        r#"engine_step_tokens_bucket{kind="decode",le="2"} 1"#,
        r#"engine_step_part_duration_seconds_sum{part="plan"} 0.001"#,
        r#"engine_step_part_duration_seconds_sum{part="forward"} 0.01"#,
        r#"engine_step_part_duration_seconds_sum{part="sample"} 0.002"#,
        r#"engine_step_part_duration_seconds_sum{part="send"} 0.003"#,
        "engine_step_memory_bytes_total 9000",
        "engine_step_operations_total 200",
        "engine_memory_bandwidth_utilization_ratio 0.9",
        "engine_compute_utilization_ratio 0.25",
        "engine_memory_bandwidth_limit_bytes_per_second 1000000",
        "engine_compute_limit_per_second 80000",
        "engine_batch_limit 16",
        "engine_step_token_limit 128",
        "engine_model_memory_bytes 5000",
        r#"engine_kv_memory_bytes{state="used"} 300"#,
        r#"engine_kv_memory_bytes{state="free"} 900"#,
        "engine_kv_usage_ratio 0.25",
        "hw_gpu_memory_usage_bytes 3000",
        "hw_gpu_memory_limit_bytes 4000",
        "hw_gpu_memory_utilization_ratio 0.75",
        r#"engine_kv_blocks{state="free"} 9"#,
        "engine_preemptions_total 0",
        "engine_prefix_cache_lookups_total 30",
        "engine_prefix_cache_hits_total 16",
        r#"engine_speculative_tokens_total{outcome="proposed"} 9"#,
        r#"engine_speculative_tokens_total{outcome="accepted"} 4"#,
        r#"gateway_telemetry_spans_total{outcome="created"} 0"#,
        "gateway_telemetry_queue 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
    drop((open, tag));
    assert!(telemetry.render_prometheus().contains(r#"gateway_requests_active{state="running"} 0"#));
}

#[test]
fn a_scrape_shows_a_gpu_only_where_there_is_one() {
    let told = |device: Option<&DeviceInfo>, memory: Option<DeviceMemory>| {
        let telemetry = Telemetry::init_on(&TelemetryConfig::default(), device).unwrap();
        let memory = move || memory;
        telemetry.watch(WatchedEngine { facts: FACTS, stats: Box::new(stats), memory: Box::new(memory) });
        telemetry.render_prometheus()
    };
    let text = told(None, None);
    assert!(text.contains("engine_kv_usage_ratio 0.25"), "{text}");
    assert!(!text.contains("gpu_memory_") && !text.contains("hw_type"), "{text}");

    let device = DeviceInfo {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        capability: (9, 0),
        multiprocessors: 132,
        memory_bytes: 85_000_000_000,
        clock_mhz: 1980,
        memory_clock_mhz: 2619,
        driver: (13, 0),
    };
    let text = told(Some(&device), Some(DeviceMemory { used: 1, total: 4 }));
    assert!(text.contains("hw_gpu_memory_utilization_ratio 0.25"), "{text}");
    let target = text.lines().find(|line| line.starts_with("target_info{")).unwrap();
    for label in [
        r#"hw_type="gpu""#,
        r#"hw_vendor="NVIDIA""#,
        r#"hw_model="NVIDIA H100 80GB HBM3""#,
        r#"gpu_driver_cuda_version="13.0""#,
        r#"gpu_compute_capability="9.0""#,
        r#"gpu_multiprocessors="132""#,
        r#"gpu_memory_bytes="85000000000""#,
        r#"gpu_clock_max_mhz="1980""#,
        r#"gpu_memory_clock_max_mhz="2619""#,
    ] {
        assert!(target.contains(label), "no {label} in {target}");
    }
}

#[test]
fn the_scrape_counts_spans() {
    let telemetry = telemetry(&ScriptedExporter::new(Collector::Takes), LIMITS);
    request(&telemetry, Outcome::Length);
    assert!(telemetry.flush());
    assert!(telemetry.render_prometheus().contains(r#"gateway_telemetry_spans_total{outcome="exported"} 8"#));
}
