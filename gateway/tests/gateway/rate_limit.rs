//! Callers who ask too often.

use std::num::NonZeroU32;

use serde_json::json;

use crate::support::{Answer, TestGateway};

fn assert_limited(answer: &Answer) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert!(answer.header("x-request-id").is_some());
    let error = &answer.json()["error"];
    assert_eq!((error["code"].as_str(), error["type"].as_str()), (Some("rate_limited"), Some("rate_limit_error")));
    assert!(error["message"].as_str().unwrap().contains(&format!("{seconds} s")) && error["param"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_rate_a_caller_is_refused_and_counted() {
    let gateway = TestGateway::start_with(|config| {
        config.limits.requests_per_minute = NonZeroU32::new(1);
        config.limits.burst = NonZeroU32::new(2);
    })
    .await;
    let brief = json!({"prompt": "x", "raw": true, "max_tokens": 1, "ignore_eos": true});
    for _ in 0..2 {
        assert_eq!(gateway.generate(brief.clone()).await.status, 200);
    }
    let refused = gateway.generate(brief).await;
    assert_limited(&refused);
    assert!(refused.header("x-trace-id").is_some());
    // Before the body is read: this one is no JSON, and the next one never comes.
    assert_limited(&gateway.post("/tokenize", "{").await);
    let head = "POST /detokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 9\r\n\r\n";
    assert_limited(&gateway.raw(head.as_bytes()).await);

    for path in ["/health", "/health/ready", "/metrics", "/v1/models"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    gateway.until(async || gateway.finished("overloaded").await == 1.0).await;
    assert_eq!(gateway.finished("length").await, 2.0);
    let refusals = gateway.metric("gen_ai_server_request_duration_seconds_count", "error_type=\"rate_limited\"").await;
    assert_eq!(refusals, 1.0);
    for (phase, requests) in [("receive", 3.0), ("tokenize", 2.0)] {
        let label = format!("phase=\"{phase}\"");
        assert_eq!(gateway.metric("gateway_phase_duration_seconds_count", &label).await, requests, "{phase}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_its_own_rate_and_a_wrong_one_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "one\ntwo\n").unwrap();
    let gateway = TestGateway::start_with(|config| {
        config.auth.keys_file = Some(keys);
        config.limits.requests_per_minute = NonZeroU32::new(1);
    })
    .await;
    let ask = async |key: &str| {
        let head = format!(
            "POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
        );
        let body = "content-type: application/json\r\ncontent-length: 12\r\n\r\n{\"text\":\"x\"}";
        gateway.raw(format!("{head}{body}").as_bytes()).await
    };
    assert_eq!(ask("three").await.status, 401);
    assert_eq!(ask("one").await.status, 200);
    assert_limited(&ask("one").await);
    assert_eq!(ask("two").await.status, 200);
    assert_limited(&ask("two").await);
    assert_eq!(ask("three").await.status, 401);
}
