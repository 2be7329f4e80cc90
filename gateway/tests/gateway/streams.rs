//! Many streams at once.

use std::sync::Arc;

use serde_json::json;
use tokio::{io::AsyncReadExt, sync::Barrier};

use crate::support::{TestGateway, endless, read_answer};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_streams_all_speak_before_any_of_them_ends() {
    const STREAMS: usize = 50;
    let gateway = TestGateway::start().await;
    let begun = Arc::new(Barrier::new(STREAMS));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut body = endless();
        body["max_tokens"] = json!(400);
        let mut socket = gateway.open(&body).await;
        let begun = Arc::clone(&begun);
        streams.push(tokio::spawn(async move {
            // Nobody reads on until everybody has the first bytes: one stream that waited for another's
            // end would hold up all.
            let mut first = [0; 16];
            socket.read_exact(&mut first).await.unwrap();
            begun.wait().await;
            let mut rest = Vec::from(first);
            socket.read_to_end(&mut rest).await.unwrap();
            String::from_utf8(rest).unwrap()
        }));
    }
    for stream in streams {
        let text = tokio::time::timeout(crate::support::PATIENCE, stream).await.unwrap().unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200") && text.contains("[DONE]") && !text.contains("event: error"),
            "{text}"
        );
    }
    gateway.until(async || gateway.finished("length").await == STREAMS as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_sleeps_holds_up_nobody() {
    let gateway = TestGateway::start().await;
    let sleeper = gateway.open(&endless()).await;
    gateway.until(async || gateway.metric("gateway_requests_active", "running").await == 1.0).await;
    let asked = json!({"prompt": "x", "raw": true, "max_tokens": 200, "ignore_eos": true, "stream": true});
    let answer = read_answer(gateway.open(&asked).await).await;
    assert!(answer.text().contains("[DONE]"));
    drop(sleeper);
    gateway.until(async || gateway.finished("cancelled").await == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_kept_alive_with_comments() {
    let gateway = TestGateway::start_with(|config| {
        config.server.keep_alive = std::time::Duration::from_nanos(1).into();
    })
    .await;
    let mut body = endless();
    body["max_tokens"] = json!(300);
    let answer = gateway.generate(body).await;
    let text = answer.text();
    assert!(text.contains("\n\n: keep-alive\n\n"), "{text}");
    assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
}
