//! The routes around `/generate`.

use serde_json::json;

use crate::support::TestGateway;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_says_so_in_json() {
    let gateway = TestGateway::start().await;
    let answer = gateway.get("/nothing").await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (404, Some("route_not_found")));
    assert!(answer.header("x-request-id").is_some());
    for (path, allow) in [("/generate", "POST"), ("/tokenize", "POST"), ("/detokenize", "POST")] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{path}");
        assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    }
    for path in ["/v1/models", "/health", "/health/live", "/health/ready", "/metrics"] {
        let answer = gateway.post(path, "{}").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_goes_to_ids_and_back() {
    let gateway = TestGateway::start().await;
    let body = json!({"text": "Grüße, 世界", "add_special_tokens": false}).to_string();
    let tokens = gateway.post("/tokenize", body).await.json();
    let ids = tokens["ids"].as_array().unwrap();
    assert!(!ids.is_empty() && tokens["count"] == ids.len() && tokens["pieces"].as_array().unwrap().len() == ids.len());
    let text = gateway.post("/detokenize", json!({"ids": ids}).to_string()).await.json();
    assert_eq!(text["text"].as_str().unwrap().trim_start(), "Grüße, 世界");

    let parsed = gateway.post("/tokenize", json!({"text": "a</s>"}).to_string()).await.json();
    let plain = gateway.post("/tokenize", json!({"text": "a</s>", "parse_special": false}).to_string()).await.json();
    assert!(parsed["ids"].as_array().unwrap().len() < plain["ids"].as_array().unwrap().len(), "{parsed} {plain}");
    assert_eq!(plain["count"], plain["ids"].as_array().unwrap().len());
    let back = gateway.post("/detokenize", json!({"ids": plain["ids"]}).to_string()).await.json();
    assert_eq!(back["text"], "a</s>");

    let special = gateway.post("/tokenize", json!({"text": "x"}).to_string()).await.json();
    let plain = gateway.post("/tokenize", json!({"text": "x", "add_special_tokens": false}).to_string()).await.json();
    assert_eq!(special["count"].as_u64(), plain["count"].as_u64().map(|count| count + 1));

    let long = "word ".repeat(5000);
    let tokens = gateway.post("/tokenize", json!({"text": long}).to_string()).await.json();
    assert!(tokens["count"].as_u64().unwrap() > 5000);

    let unknown = gateway.post("/detokenize", json!({"ids": [4_000_000_000_u32]}).to_string()).await;
    assert_eq!((unknown.status, unknown.json()["error"]["param"].as_str()), (400, Some("ids")));
    let wrong = gateway.post("/detokenize", json!({"ids": [1, "x"]}).to_string()).await;
    assert_eq!((wrong.status, wrong.json()["error"]["param"].as_str()), (400, Some("ids[1]")));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_health_and_metrics_tell_what_is_served() {
    let gateway = TestGateway::start_with(|config| config.model.aliases = vec!["gpt-4o".to_owned()]).await;
    let models = gateway.get("/v1/models").await.json();
    assert_eq!((models["object"].as_str(), models["data"][0]["id"].as_str()), (Some("list"), Some("tiny")));
    assert_eq!(models["data"][1]["id"], "gpt-4o");
    let asked = json!({"prompt": "x", "raw": true, "max_tokens": 1, "ignore_eos": true, "model": "gpt-4o"});
    assert_eq!(gateway.generate(asked).await.json()["model"], "tiny");

    let health = gateway.get("/health").await.json();
    assert_eq!((health["status"].as_str(), health["model"].as_str()), (Some("ready"), Some("tiny")));
    assert_eq!(gateway.get("/health/live").await.status, 200);

    let metrics = gateway.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().contains("gen_ai_server_time_to_first_token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_only_their_holders_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "open-sesame\n").unwrap();
    let gateway = TestGateway::start_with(|config| config.auth.keys_file = Some(keys)).await;
    let models = async |header: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n\r\n");
        gateway.raw(request.as_bytes()).await
    };
    for header in ["x-none: 1", "authorization: Bearer wrong", "authorization: Basic open-sesame", "authorization: x"] {
        let answer = models(header).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{header}");
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(models("authorization: Bearer open-sesame").await.status, 200);
    assert_eq!(models("authorization: bearer open-sesame").await.status, 200);
    assert_eq!(gateway.generate(json!({"prompt": "x"})).await.status, 401);
    gateway.until(async || gateway.finished("invalid").await == 1.0).await;
}
