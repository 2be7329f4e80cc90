//! What `/debug/requests` shows.

use serde_json::{Value, json};

use crate::support::TestGateway;

fn asked(tokens: u32) -> Value {
    json!({"prompt": "a secret nobody repeats", "raw": true, "max_tokens": tokens, "ignore_eos": true, "seed": 1})
}

/// The requests shown, once there are `number`: the last ones close just after their answers.
async fn shown(gateway: &TestGateway, query: &str, number: usize) -> Vec<Value> {
    let read = async || gateway.get(&format!("/debug/requests{query}")).await.json()["requests"].as_array().cloned();
    gateway.until(async || read().await.is_some_and(|requests| requests.len() == number)).await;
    read().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_of_ended_requests_are_shown_without_content() {
    let gateway = TestGateway::start().await;
    let short = gateway.generate(asked(1)).await.json();
    let long = gateway.generate(asked(400)).await.json();
    assert_eq!(gateway.generate(json!({"prompt": 7})).await.status, 400);

    let requests = shown(&gateway, "", 3).await;
    let at = |trace: &Value| requests.iter().find(|request| request["trace_id"] == *trace).unwrap();
    for answer in [&short, &long] {
        let request = at(&answer["trace_id"]);
        assert_eq!(request["id"], answer["id"]);
        assert_eq!(request["usage"], answer["usage"]);
        assert_eq!((request["outcome"].as_str(), request["status"].as_u64()), (Some("length"), Some(200)));
        let phases = answer["timings"]["phases"].as_object().unwrap();
        for (name, time) in phases.iter().filter(|(name, _)| *name != "deliver_ms") {
            assert_eq!(request["timings"]["phases"][name], *time, "{name}");
        }
        let sum: f64 = request["timings"]["phases"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
        assert!((sum - request["timings"]["total_ms"].as_f64().unwrap()).abs() < 1e-6, "{request}");
    }
    let totals: Vec<f64> = requests.iter().map(|request| request["timings"]["total_ms"].as_f64().unwrap()).collect();
    assert!(totals.is_sorted_by(|a, b| a >= b), "{totals:?}");

    let decoded = shown(&gateway, "?sort=decode", 2).await;
    assert_eq!(decoded[0]["trace_id"], long["trace_id"]);
    let refused = requests.iter().find(|request| request["outcome"] == "invalid").unwrap();
    assert_eq!((refused["error_type"].as_str(), refused["status"].as_u64()), (Some("invalid_value"), Some(400)));
    assert_eq!(shown(&gateway, "?limit=1&sort=total", 1).await[0]["trace_id"], requests[0]["trace_id"]);
    assert!(!gateway.get("/debug/requests").await.text().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_is_refused_by_name() {
    let gateway = TestGateway::start().await;
    for (query, param, code) in [
        ("sort=speed", "sort", "invalid_value"),
        ("limit=0", "limit", "invalid_value"),
        ("limit=-1", "limit", "invalid_value"),
        ("order=total", "order", "unknown_field"),
    ] {
        let answer = gateway.get(&format!("/debug/requests?{query}")).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["param"].as_str(), error["code"].as_str()), (400, Some(param), Some(code)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_there_on_loopback_or_where_it_was_asked_for_and_keys_guard_it() {
    let off = TestGateway::start_with(|config| config.server.debug_requests = Some(false)).await;
    assert_eq!(off.get("/debug/requests").await.status, 404);
    let everywhere = TestGateway::start_with(|config| config.server.host = "0.0.0.0".parse().unwrap()).await;
    assert_eq!(everywhere.get("/debug/requests").await.status, 404);

    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "open-sesame\n").unwrap();
    let guarded = TestGateway::start_with(|config| config.auth.keys_file = Some(keys)).await;
    assert_eq!(guarded.get("/debug/requests").await.status, 401);
}
