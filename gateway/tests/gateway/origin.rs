//! Under which name the gateway answers, and to which pages.

use crate::support::{Answer, TestGateway};

async fn asked(gateway: &TestGateway, lines: &str) -> Answer {
    let (first, rest) = lines.split_once('|').unwrap_or((lines, ""));
    let headers: String = rest.split('|').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
    gateway.raw(format!("{first}\r\nconnection: close\r\n{headers}\r\n").as_bytes()).await
}

async fn check(gateway: &TestGateway, cases: &[(&str, u16, &str)]) {
    for &(lines, status, code) in cases {
        let answer = asked(gateway, lines).await;
        assert_eq!(answer.status, status, "{lines}: {}", answer.text());
        assert!(answer.header("x-request-id").is_some(), "{lines}");
        assert!(status == 200 || answer.json()["error"]["code"] == code, "{lines}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_without_keys_only_this_machines_names_are_answered_to() {
    let gateway = TestGateway::start_with(|config| config.server.allowed_hosts = vec!["llm.lan".to_owned()]).await;
    check(
        &gateway,
        &[
            ("GET /metrics HTTP/1.1|Host: localhost:8000", 200, ""),
            ("GET /metrics HTTP/1.1|Host: LocalHost.", 200, ""),
            ("GET /metrics HTTP/1.1|Host: a.localhost", 200, ""),
            ("GET /metrics HTTP/1.1|Host: 127.8.9.1:1", 200, ""),
            ("GET /metrics HTTP/1.1|Host: [::1]:8000", 200, ""),
            ("GET /metrics HTTP/1.1|Host: LLM.lan:8000", 200, ""),
            ("GET /metrics HTTP/1.0", 200, ""),
            ("GET /metrics HTTP/1.1", 400, "invalid_host"),
            ("GET /metrics HTTP/1.1|Host: localhost|Host: localhost", 400, "invalid_host"),
            ("GET /metrics HTTP/1.1|Host: a b", 400, "invalid_host"),
            ("GET /metrics HTTP/1.1|Host: me@localhost", 400, "invalid_host"),
            ("GET /metrics HTTP/1.1|Host: evil.example", 403, "host_not_allowed"),
            ("GET /metrics HTTP/1.1|Host: localhost.evil.example", 403, "host_not_allowed"),
            ("GET /metrics HTTP/1.1|Host: 192.168.1.1", 403, "host_not_allowed"),
            ("GET http://evil.example/metrics HTTP/1.1|Host: localhost", 403, "host_not_allowed"),
            ("POST /generate HTTP/1.1|Host: evil.example:8000", 403, "host_not_allowed"),
        ],
    )
    .await;
    let open = TestGateway::start_with(|config| config.server.host = "0.0.0.0".parse().unwrap()).await;
    check(
        &open,
        &[("GET /health HTTP/1.1|Host: gateway:8000", 200, ""), ("GET /health HTTP/1.1", 400, "invalid_host")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_ask_only_where_they_are_named() {
    let gateway = TestGateway::start().await;
    check(
        &gateway,
        &[
            ("GET /health HTTP/1.1|Host: localhost:8000|Origin: http://localhost:8000", 200, ""),
            ("GET /health HTTP/1.1|Host: localhost|Origin: https://localhost", 200, ""),
            ("GET /health HTTP/1.1|Host: localhost|Sec-Fetch-Site: same-origin", 200, ""),
            ("GET /health HTTP/1.1|Host: localhost|Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate", 200, ""),
            ("GET /health HTTP/1.1|Host: localhost:8000|Origin: http://localhost:3000", 403, "origin_not_allowed"),
            ("GET /health HTTP/1.1|Host: localhost|Origin: null", 403, "origin_not_allowed"),
            ("GET /health HTTP/1.1|Host: localhost|Origin: https://evil.example", 403, "origin_not_allowed"),
            ("OPTIONS /generate HTTP/1.1|Host: localhost|Origin: https://evil.example", 403, "origin_not_allowed"),
            ("GET /metrics HTTP/1.1|Host: localhost|Sec-Fetch-Site: cross-site", 403, "origin_not_allowed"),
        ],
    )
    .await;

    let named =
        TestGateway::start_with(|config| config.server.cors_origin = vec!["https://a.example".to_owned()]).await;
    let preflight = "OPTIONS /generate HTTP/1.1|Host: localhost|Origin: https://a.example\
                     |Access-Control-Request-Method: POST|Access-Control-Request-Headers: authorization,content-type";
    let answer = asked(&named, preflight).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://a.example")));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type"));
    let answer = asked(&named, "GET /health HTTP/1.1|Host: localhost|Origin: https://a.example").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://a.example")));
    check(&named, &[("GET /health HTTP/1.1|Host: localhost|Origin: https://b.example", 403, "origin_not_allowed")])
        .await;
}
