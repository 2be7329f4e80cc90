//! Bad input gets its 4xx with the field named, and harms nobody after it.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PATIENCE, TestGateway, post_bytes};

/// A body, and the status, `error.param` and `error.code` it must get.
type Case = (&'static str, u16, Option<&'static str>, &'static str);

const BODIES: [Case; 48] = [
    // Not JSON, or not an object.
    ("", 400, None, "invalid_json"),
    ("   ", 400, None, "invalid_json"),
    ("nonsense", 400, None, "invalid_json"),
    ("null", 400, None, "invalid_json"),
    ("42", 400, None, "invalid_json"),
    ("\"prompt\"", 400, None, "invalid_json"),
    ("[\"prompt\"]", 400, None, "invalid_json"),
    ("{", 400, None, "invalid_json"),
    ("{\"prompt\":", 400, None, "invalid_json"),
    ("{\"prompt\":\"x", 400, None, "invalid_json"),
    ("{\"prompt\":\"x\"", 400, None, "invalid_json"),
    ("{\"prompt\":\"x\",}", 400, None, "invalid_json"),
    ("{\"prompt\":\"x\"}{}", 400, None, "invalid_json"),
    ("{'prompt':'x'}", 400, None, "invalid_json"),
    ("{\"prompt\":\"\\ud800\"}", 400, None, "invalid_json"),
    ("{\"prompt\":\"a\nb\"}", 400, None, "invalid_json"),
    ("{\"prompt\":\"x\",\"temperature\":NaN}", 400, None, "invalid_json"),
    ("{\"prompt\":\"x\",\"temperature\":1e999}", 400, None, "invalid_json"),
    // Fields missing, unknown or twice.
    ("{}", 400, Some("prompt"), "missing_field"),
    ("{\"max_tokens\":5}", 400, Some("prompt"), "missing_field"),
    ("{\"prompt\":\"x\",\"max_token\":5}", 400, Some("max_token"), "unknown_field"),
    ("{\"prompt\":\"x\",\"messages\":[]}", 400, Some("messages"), "unknown_field"),
    ("{\"prompt\":\"x\",\"prompt\":\"y\"}", 400, Some("prompt"), "invalid_value"),
    // Types.
    ("{\"prompt\":null}", 400, Some("prompt"), "invalid_value"),
    ("{\"prompt\":7}", 400, Some("prompt"), "invalid_value"),
    ("{\"prompt\":[\"x\"]}", 400, Some("prompt"), "invalid_value"),
    ("{\"prompt\":\"x\",\"max_tokens\":\"5\"}", 400, Some("max_tokens"), "invalid_value"),
    ("{\"prompt\":\"x\",\"max_tokens\":1.5}", 400, Some("max_tokens"), "invalid_value"),
    ("{\"prompt\":\"x\",\"stream\":1}", 400, Some("stream"), "invalid_value"),
    ("{\"prompt\":\"x\",\"seed\":-1}", 400, Some("seed"), "invalid_value"),
    ("{\"prompt\":\"x\",\"seed\":18446744073709551616}", 400, Some("seed"), "invalid_value"),
    ("{\"prompt\":\"x\",\"stop\":5}", 400, Some("stop"), "invalid_value"),
    ("{\"prompt\":\"x\",\"stop\":[\"a\",5]}", 400, Some("stop[1]"), "invalid_value"),
    ("{\"prompt\":\"x\",\"model\":{}}", 400, Some("model"), "invalid_value"),
    // Ranges.
    ("{\"prompt\":\"\"}", 400, Some("prompt"), "invalid_value"),
    ("{\"prompt\":\"x\",\"max_tokens\":0}", 400, Some("max_tokens"), "invalid_value"),
    ("{\"prompt\":\"x\",\"max_tokens\":-1}", 400, Some("max_tokens"), "invalid_value"),
    ("{\"prompt\":\"x\",\"max_tokens\":4294967296}", 400, Some("max_tokens"), "invalid_value"),
    ("{\"prompt\":\"x\",\"temperature\":2.1}", 400, Some("temperature"), "invalid_value"),
    ("{\"prompt\":\"x\",\"temperature\":1e39}", 400, Some("temperature"), "invalid_value"),
    ("{\"prompt\":\"x\",\"top_p\":0}", 400, Some("top_p"), "invalid_value"),
    ("{\"prompt\":\"x\",\"min_p\":1.5}", 400, Some("min_p"), "invalid_value"),
    ("{\"prompt\":\"x\",\"repetition_penalty\":0}", 400, Some("repetition_penalty"), "invalid_value"),
    ("{\"prompt\":\"x\",\"presence_penalty\":-3}", 400, Some("presence_penalty"), "invalid_value"),
    ("{\"prompt\":\"x\",\"frequency_penalty\":3}", 400, Some("frequency_penalty"), "invalid_value"),
    ("{\"prompt\":\"x\",\"logprobs\":21}", 400, Some("logprobs"), "invalid_value"),
    ("{\"prompt\":\"x\",\"stop\":[\"\"]}", 400, Some("stop[0]"), "invalid_value"),
    ("{\"prompt\":\"x\",\"model\":\"gpt-4\"}", 404, Some("model"), "model_not_found"),
];

/// The good request that must succeed after every bad one.
async fn good(gateway: &TestGateway) {
    let answer = gateway.generate(json!({"prompt": "x", "raw": true, "max_tokens": 1, "ignore_eos": true})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn refused(gateway: &TestGateway, what: &str, request: &[u8], expected: (u16, Option<&str>, &str)) {
    let answer = gateway.raw(request).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, error["param"].as_str(), error["code"].as_str().unwrap()), expected, "{what}: {error}");
    assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string(), "{what}: {error}");
    assert!(answer.header("x-request-id").is_some() && answer.header("x-trace-id").is_some(), "{what}");
    good(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_body_is_refused_by_name_and_the_next_good_one_succeeds() {
    let gateway = TestGateway::start().await;
    for (body, status, param, code) in BODIES {
        refused(&gateway, body, &post_bytes("/generate", body.as_bytes()), (status, param, code)).await;
    }
    gateway.until(async || gateway.finished("invalid").await == BODIES.len() as f64).await;
    assert_eq!(gateway.finished("length").await, BODIES.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_encodings_and_sizes_are_refused() {
    let gateway = TestGateway::start_with(|config| config.engine.max_context = Some(64)).await;
    let post = |body: &[u8]| post_bytes("/generate", body);
    let nested = |depth: usize| format!("{{\"prompt\":{}", "[".repeat(depth)).into_bytes();
    let stops = json!({"prompt": "x", "stop": vec!["a"; 17]}).to_string();
    let long_stop = json!({"prompt": "x", "stop": "a".repeat(257)}).to_string();
    let long_name = format!("{{\"prompt\":\"x\",\"{}\":1}}", "n".repeat(100_000));

    refused(&gateway, "invalid UTF-8", &post(b"{\"prompt\":\"\xff\xfe\"}"), (400, None, "invalid_json")).await;
    refused(&gateway, "overlong UTF-8", &post(b"{\"prompt\":\"\xc0\xaf\"}"), (400, None, "invalid_json")).await;
    refused(&gateway, "raw NUL", &post(b"{\"prompt\":\"a\0b\"}"), (400, None, "invalid_json")).await;
    refused(&gateway, "byte order mark", &post(b"\xef\xbb\xbf{\"prompt\":\"x\"}"), (400, None, "invalid_json")).await;
    refused(&gateway, "UTF-16", &post(b"{\0\"\0p\0\"\0:\0\"\0x\0\"\0}\0"), (400, None, "invalid_json")).await;
    refused(&gateway, "deep nesting", &post(&nested(100_000)), (400, Some("prompt"), "invalid_value")).await;
    refused(&gateway, "deep root", &post(&vec![b'['; 1 << 20]), (400, None, "invalid_json")).await;
    refused(&gateway, "17 stops", &post(stops.as_bytes()), (400, Some("stop"), "invalid_value")).await;
    refused(&gateway, "long stop", &post(long_stop.as_bytes()), (400, Some("stop[0]"), "invalid_value")).await;
    let answer = gateway.raw(&post(long_name.as_bytes())).await;
    assert_eq!((answer.status, answer.body.len() < 1500), (400, true), "a long name is quoted in part");

    let prompt = json!({"prompt": "word ".repeat(1000), "raw": true}).to_string();
    refused(&gateway, "long prompt", &post(prompt.as_bytes()), (400, Some("prompt"), "context_length_exceeded")).await;
    let message = gateway.raw(&post(prompt.as_bytes())).await.json()["error"]["message"].to_string();
    assert!(message.contains("64"), "the limit is named: {message}");

    let nul = gateway.generate(json!({"prompt": "a\0b", "raw": true, "max_tokens": 1, "ignore_eos": true})).await;
    assert_eq!(nul.status, 200, "an escaped NUL is a character like any other");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_are_not_read() {
    let gateway =
        TestGateway::start_with(|config| config.limits.max_body_bytes = gateway::config::ByteSize(4096)).await;
    let head = "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let too_large = (413, None, "body_too_large");

    // Announced: refused although not one byte of it was sent.
    let announced = format!("{head}content-length: 100000000\r\n\r\n");
    refused(&gateway, "announced", announced.as_bytes(), too_large).await;

    // Sent all the same: the sender still gets to read the answer.
    let mut sent = announced.into_bytes();
    sent.resize(sent.len() + 100_000_000, b' ');
    refused(&gateway, "sent", &sent, too_large).await;

    // Chunked: cut at the limit.
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..100_000_000 / 65_536 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.resize(chunked.len() + 0x10000, b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    refused(&gateway, "chunked", &chunked, too_large).await;
    gateway.until(async || gateway.finished("invalid").await == 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_media_types_are_refused() {
    let gateway = TestGateway::start().await;
    for header in [
        "x-none: 1",
        "content-type: text/plain",
        "content-type: application/x-www-form-urlencoded",
        "content-type: application/json; charset=latin1",
        "content-type: application/json\r\ncontent-encoding: gzip",
    ] {
        let request = format!(
            "POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\ncontent-length: 14\r\n\r\n{{\"prompt\":\"x\"}}"
        );
        refused(&gateway, header, request.as_bytes(), (415, None, "unsupported_media_type")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_taken_under_each_of_its_names_and_null_is_as_absent() {
    let gateway = TestGateway::start().await;
    let body = r#"{"prompt":"x","raw":null,"stream":null,"stop":null,"ignore_eos":null,"temperature":null,"max_tokens":null,
        "top_p":null,"top_k":null,"min_p":null,"repetition_penalty":null,"presence_penalty":null,"frequency_penalty":null,
        "seed":null,"logprobs":null,"model":null}"#;
    for media_type in [
        "application/json; charset=utf8",
        "Application/JSON;Charset=\"UTF-8\"",
        "application/vnd.api+json",
        "application/json; profile=x; charset = utf-8",
    ] {
        let length = body.len();
        let request = format!(
            "POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {media_type}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        let answer = gateway.raw(request.as_bytes()).await;
        assert_eq!(answer.status, 200, "{media_type}: {}", answer.text());
    }
    let tokens = gateway.post("/tokenize", r#"{"text":"x","add_special_tokens":null,"parse_special":null}"#).await;
    assert_eq!(tokens.json(), gateway.post("/tokenize", r#"{"text":"x"}"#).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gateway = TestGateway::start_with(|config| {
        config.limits.body_timeout = std::time::Duration::from_millis(50).into();
    })
    .await;
    let head =
        "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    refused(&gateway, "slow", head.as_bytes(), (408, None, "body_timeout")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_chunks_are_refused() {
    let gateway = TestGateway::start().await;
    let head = "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}nonsense\r\n{{}}\r\n");
    refused(&gateway, "chunks", request.as_bytes(), (400, None, "body_malformed")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_connection_to_the_next_request() {
    let gateway = TestGateway::start().await;
    let request = |body: &str, connection: &str| {
        let length = body.len();
        format!(
            "POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let good = json!({"prompt": "x", "raw": true, "max_tokens": 1, "ignore_eos": true}).to_string();
    let both = request("{\"prompt\":5}", "keep-alive") + &request(&good, "close");
    let answers = gateway.raw(both.as_bytes()).await;
    assert_eq!(answers.status, 400);
    assert!(answers.text().contains("HTTP/1.1 200 OK"), "{}", answers.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_or_no_http_is_refused() {
    let gateway = TestGateway::start().await;
    let large = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(gateway.raw(large.as_bytes()).await.status, 431);
    assert_eq!(gateway.raw(b"\x16\x03\x01 hello\r\n\r\n").await.status, 400);
    good(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let gateway = TestGateway::start_with(|config| {
        config.server.header_timeout = std::time::Duration::from_millis(50).into();
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(b"POST /generate HTTP/1.1\r\nhost: ").await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "the gateway hangs up");
    good(&gateway).await;
}
