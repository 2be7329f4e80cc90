//! Answers of `/generate`, whole and streamed.

use serde_json::{Value, json};

use crate::support::{Answer, TestGateway};

const PHASES: [&str; 6] = ["receive_ms", "tokenize_ms", "queue_ms", "prefill_ms", "decode_ms", "deliver_ms"];

fn asked(stream: bool) -> Value {
    json!({"prompt": "Hello", "raw": true, "max_tokens": 12, "ignore_eos": true, "seed": 7, "stream": stream})
}

fn check_timings(timings: &Value) {
    let number = |value: &Value| value.as_f64().unwrap();
    let phases = timings["phases"].as_object().unwrap();
    assert_eq!(phases.len(), PHASES.len());
    let sum: f64 = PHASES.iter().map(|phase| number(&phases[*phase])).sum();
    assert!((sum - number(&timings["total_ms"])).abs() < 1e-6, "{timings}");
    let first: f64 = PHASES[..4].iter().map(|phase| number(&phases[*phase])).sum();
    assert!((first - number(&timings["ttft_ms"])).abs() < 1e-6, "{timings}");
    let per_token = number(&phases["decode_ms"]) / 11.0;
    assert!((per_token - number(&timings["tpot_ms"])).abs() < 1e-3, "{timings}");
    assert!(["stall_ms", "preempted_ms", "interference_ms"].iter().all(|name| number(&timings[*name]) >= 0.0));
}

fn check_usage(usage: &Value) {
    assert_eq!(usage["completion_tokens"], 12);
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 0 && usage["total_tokens"] == prompt + 12 && usage["cached_tokens"].is_u64());
}

/// The text of a streamed answer and its final event.
fn streamed(answer: &Answer) -> (String, Vec<u64>, Value) {
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let mut events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let last = events.pop().unwrap();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["index"], index);
    }
    let text = events.iter().map(|event| event["text"].as_str().unwrap()).collect();
    let ids = events.iter().flat_map(|event| event["token_ids"].as_array().unwrap()).map(|id| id.as_u64().unwrap());
    (text, ids.collect(), last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_says_what_was_said_and_where_the_time_went() {
    let gateway = TestGateway::start().await;
    let sent = std::time::Instant::now();
    let answer = gateway.generate(asked(false)).await;
    let measured = sent.elapsed().as_secs_f64() * 1e3;

    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("gen-"));
    assert_eq!(body["model"], "tiny");
    assert_eq!(body["finish_reason"], "length");
    assert!(!body["text"].as_str().unwrap().is_empty());
    assert!(body.get("logprobs").is_none());
    check_usage(&body["usage"]);
    check_timings(&body["timings"]);
    assert!(body["timings"]["total_ms"].as_f64().unwrap() <= measured);

    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-trace-id"), body["trace_id"].as_str());
    assert_eq!(body["trace_id"].as_str().unwrap().len(), 32);
    let header = answer.header("server-timing").unwrap();
    let decode = body["timings"]["phases"]["decode_ms"].as_f64().unwrap();
    assert!(header.contains(&format!("decode;dur={decode:.6}")) && header.contains("total;dur="), "{header}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_the_whole_one_in_pieces() {
    let gateway = TestGateway::start().await;
    let whole = gateway.generate(asked(false)).await.json();
    let answer = gateway.generate(asked(true)).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let (text, ids, last) = streamed(&answer);
    assert_eq!(text, whole["text"].as_str().unwrap());
    assert_eq!(ids.len(), 12);
    assert_eq!(last["finish_reason"], "length");
    assert_eq!((last["model"].as_str(), last["trace_id"].as_str()), (Some("tiny"), answer.header("x-trace-id")));
    check_usage(&last["usage"]);
    check_timings(&last["timings"]);
    gateway.until(async || gateway.finished("length").await == 2.0).await;
    assert_eq!(gateway.finished("cancelled").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides_and_no_seed_is_a_new_one() {
    let gateway = TestGateway::start().await;
    let text = async |seed: Option<u64>| {
        let mut body = asked(false);
        body["seed"] = json!(seed);
        body["temperature"] = json!(1.5);
        gateway.generate(body).await.json()["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(text(Some(u64::MAX)).await, text(Some(u64::MAX)).await);
    assert_ne!(text(None).await, text(None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_ends_the_answer_before_itself() {
    let gateway = TestGateway::start().await;
    let whole = gateway.generate(asked(false)).await.json()["text"].as_str().unwrap().to_owned();
    let stop: String = whole.chars().skip(whole.chars().count() / 2).take(2).collect();
    let mut body = asked(false);
    body["stop"] = json!(stop);
    let stopped = gateway.generate(body.clone()).await.json();
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"].as_str(), whole.find(&stop).map(|at| &whole[..at]));
    body["stream"] = json!(true);
    let (text, _, last) = streamed(&gateway.generate(body).await);
    assert_eq!((text.as_str(), last["finish_reason"].as_str()), (stopped["text"].as_str().unwrap(), Some("stop")));
}

#[tokio::test(flavor = "multi_thread")]
async fn logprobs_come_with_every_token_and_its_rivals() {
    let gateway = TestGateway::start().await;
    let mut body = asked(false);
    body["logprobs"] = json!(3);
    body["temperature"] = json!(0);
    let whole = gateway.generate(body.clone()).await.json();
    let logprobs = whole["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 12);
    for token in logprobs {
        assert_eq!(token["top"].as_array().unwrap().len(), 3);
        assert_eq!(token["id"], token["top"][0]["id"], "greedy takes the most likely");
        assert!(token["logprob"].as_f64().unwrap() < 0.0 && token["token"].is_string());
    }
    body["stream"] = json!(true);
    let answer = gateway.generate(body).await;
    let events = answer.events();
    let events = events[..events.len() - 2].iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
    let streamed: Vec<Value> = events.flat_map(|event| event["logprobs"].as_array().unwrap().clone()).collect();
    assert_eq!(&streamed, logprobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_has_no_time_per_token() {
    let gateway = TestGateway::start().await;
    let mut body = asked(false);
    body["max_tokens"] = json!(1);
    let timings = gateway.generate(body).await.json()["timings"].clone();
    assert!(timings["ttft_ms"].is_number() && timings.get("tpot_ms").is_none(), "{timings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_trace_and_request_id_are_carried_on() {
    let gateway = TestGateway::start().await;
    let body = asked(false).to_string();
    let send = async |id: &str| {
        let request = format!(
            "POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
             x-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        gateway.raw(request.as_bytes()).await
    };
    let answer = send("mine-1").await;
    assert_eq!(answer.json()["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let span = answer.header("traceresponse").unwrap();
    assert!(span.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !span.contains("b7ad6b7169203331"), "{span}");
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    for insane in ["a b", &"x".repeat(129), "ü"] {
        let id = send(insane).await.header("x-request-id").unwrap().to_owned();
        assert!(id != insane && id.len() == 36, "{id}");
    }
}
