//! Too much to do, or too little time: a status where there can be one, else an event.

use std::time::Duration;

use serde_json::json;

use crate::support::{TestGateway, endless};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_with_a_time_to_come_back() {
    let gateway = TestGateway::start_with(|config| {
        config.engine.max_batch = 1;
        config.engine.max_queue = 1;
    })
    .await;
    let running = gateway.open(&endless()).await;
    gateway.until(async || gateway.metric("gateway_requests_active", "running").await == 1.0).await;
    let waiting = gateway.open(&endless()).await;
    gateway.until(async || gateway.metric("gateway_requests_active", "waiting").await == 1.0).await;

    // The second one may still be on its way into the queue.
    gateway
        .until(async || {
            let mut brief = endless();
            brief["max_tokens"] = json!(1);
            let refused = gateway.generate(brief).await;
            assert_eq!(refused.status, 503, "{}", refused.text());
            let error = &refused.json()["error"];
            assert_eq!(
                (error["code"].as_str(), error["type"].as_str()),
                (Some("overloaded"), Some("overloaded_error"))
            );
            refused.header("retry-after") == Some("1")
        })
        .await;
    assert_eq!(gateway.finished("overloaded").await, 1.0);
    drop((running, waiting));
    gateway.until(async || gateway.finished("cancelled").await == 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_before_the_first_token_is_a_status() {
    let gateway = TestGateway::start_with(|config| {
        config.limits.request_timeout = Duration::from_millis(20).into();
    })
    .await;
    let mut body = endless();
    // Far more tokens than can be read in that time.
    body["prompt"] = json!("word ".repeat(5000));
    let late = gateway.generate(body).await;
    assert_eq!((late.status, late.json()["error"]["code"].as_str()), (504, Some("deadline_exceeded")));
    gateway.until(async || gateway.finished("deadline").await == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_after_the_first_byte_is_an_event_and_the_end() {
    let gateway = TestGateway::start_with(|config| {
        config.limits.request_timeout = Duration::from_millis(300).into();
    })
    .await;
    let answer = gateway.generate(endless()).await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let (_, error) = text.rsplit_once("event: error\ndata: ").unwrap();
    let error: serde_json::Value = serde_json::from_str(error.trim_end()).unwrap();
    assert_eq!(error["error"]["code"], "deadline_exceeded");
    assert!(!text.contains("[DONE]"));

    let mut whole = endless();
    whole["stream"] = json!(false);
    assert_eq!(gateway.generate(whole).await.status, 504);
    gateway.until(async || gateway.finished("deadline").await == 2.0).await;
}
