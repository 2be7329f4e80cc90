//! One request against the mock: what is stamped, what is sent, how each failure is named.

use std::time::{Duration, Instant};

use loadgen::client::{Due, GenerateRequest, Target, stream_once};
use loadgen::record::{Epoch, ErrorClass, RequestRecord, Usage};

use crate::mock::{Behaviour, Mock, QUICK};

/// What this machine may add to a time, busy as it may be.
const SLACK: Duration = Duration::from_millis(150);

async fn send(url: &str, timeout: Duration) -> RequestRecord {
    let target = Target::new(url.parse().unwrap(), timeout).unwrap();
    let body = GenerateRequest { prompt: "hi", max_tokens: 8, stream: true, temperature: None, ignore_eos: false };
    let epoch = Epoch::start();
    let due = Due { user: 0, prompt: 0, scheduled: Instant::now() };
    stream_once(&target, epoch, due, &body, std::future::pending()).await
}

#[tokio::test]
async fn times_are_those_of_the_server() {
    let (ttft, gap, tokens) = (Duration::from_millis(120), Duration::from_millis(15), 20);
    let mock = Mock::start(Behaviour::Answer { ttft, gap, tokens }).await;
    let record = send(&mock.url, Duration::from_secs(60)).await;
    assert_eq!(record.error, None);
    let sent = &mock.seen()[0].sent;
    // The empty first event came at once and is not counted: TTFT is the text's, never less than the truth.
    let measured = record.ttft().unwrap();
    assert!(measured >= ttft && measured < ttft + SLACK, "TTFT {measured:?} should be about {ttft:?}");
    let truth = (*sent.last().unwrap() - sent[0]) / (tokens - 1);
    let measured = record.tpot().unwrap();
    let apart = measured.abs_diff(truth);
    assert!(apart < Duration::from_millis(8), "TPOT {measured:?} should be about {truth:?}");
    assert!(record.latency() >= ttft + gap * (tokens - 1));
    assert_eq!(record.gaps().count(), 19);
    assert_eq!(record.chunks.iter().map(|chunk| (chunk.characters, chunk.tokens)).collect::<Vec<_>>(), [(2, 1); 20]);
    assert!(record.scheduled_us <= record.sent_us && record.sent_us <= record.headers_us.unwrap());
    assert!(record.headers_us.unwrap() < record.first_content_us().unwrap());
}

#[tokio::test]
async fn the_answer_is_kept_with_its_usage_timings_and_trace() {
    let mock = Mock::start(QUICK).await;
    let record = send(&mock.url, Duration::from_secs(60)).await;
    assert_eq!(record.usage, Some(Usage { prompt_tokens: 10, completion_tokens: 8, cached_tokens: 4 }));
    assert_eq!((record.status, record.finish_reason.as_deref()), (Some(200), Some("length")));
    assert_eq!(record.timings.as_ref().unwrap().phases["prefill_ms"], 20.0);
    assert_eq!(record.server_trace_id.as_deref(), Some(record.trace_id.as_str()));
    let line = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<RequestRecord>(&line).unwrap(), record);
}

#[tokio::test]
async fn a_request_asks_for_a_plain_stream_and_names_its_trace() {
    let mock = Mock::start(QUICK).await;
    let records = [send(&mock.url, Duration::from_secs(60)).await, send(&mock.url, Duration::from_secs(60)).await];
    let seen = mock.seen();
    assert_eq!(seen[0].body, serde_json::json!({"prompt": "hi", "max_tokens": 8, "stream": true}));
    assert_eq!(seen[0].headers["accept-encoding"], "identity");
    let parents: Vec<&str> = seen.iter().map(|seen| seen.headers["traceparent"].to_str().unwrap()).collect();
    assert_ne!(parents[0], parents[1]);
    for (parent, record) in parents.into_iter().zip(records) {
        let parts: Vec<&str> = parent.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{parent}");
        assert!(parts.iter().all(|part| u128::from_str_radix(part, 16).is_ok() && *part == part.to_lowercase()));
        assert!(parts[0] == "00" && parts[3] == "01" && u128::from_str_radix(parts[1], 16).unwrap() > 0);
        assert_eq!((parts[1], parts[2]), (record.trace_id.as_str(), record.span_id.as_str()));
    }
}

#[tokio::test]
async fn every_failure_has_its_class() {
    let table = [
        (Behaviour::Refuse, ErrorClass::Http(503), "the queue is full"),
        (Behaviour::FailInStream, ErrorClass::InStream, "the engine failed"),
        (Behaviour::Break, ErrorClass::Closed, ""),
        (Behaviour::Stall, ErrorClass::IdleTimeout, "no more text for"),
        (Behaviour::Silence, ErrorClass::FirstTokenTimeout, "no text within"),
        (Behaviour::Truncate, ErrorClass::Truncated, "finish reason"),
        (Behaviour::Html, ErrorClass::NotAStream, "text/plain"),
    ];
    for (behaviour, class, message) in table {
        let mock = Mock::start(behaviour).await;
        let failure = send(&mock.url, Duration::from_secs(1)).await.error.unwrap();
        assert_eq!(failure.class, class, "{behaviour:?}: {}", failure.message);
        assert!(failure.message.contains(message), "{behaviour:?}: {}", failure.message);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_connect_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let record = send(&url, Duration::from_secs(5)).await;
    assert_eq!((record.error.unwrap().class, record.status), (ErrorClass::Refused, None));
}

#[tokio::test]
async fn a_long_answer_is_not_cut_while_text_keeps_coming() {
    let behaviour = Behaviour::Answer { ttft: Duration::from_millis(10), gap: Duration::from_millis(100), tokens: 15 };
    let mock = Mock::start(behaviour).await;
    let record = send(&mock.url, Duration::from_secs(1)).await;
    assert_eq!(record.error, None);
    assert!(record.latency() > Duration::from_secs(1));
}
