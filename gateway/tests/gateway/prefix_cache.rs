//! Prompts that begin like earlier ones.

use serde_json::{Value, json};

use crate::support::{TestGateway, post_bytes};

fn asked(ending: &str) -> Value {
    let prompt = format!("{} {ending}", "A beginning that several prompts have in common.".repeat(3));
    json!({"prompt": prompt, "raw": true, "max_tokens": 8, "ignore_eos": true, "seed": 1, "logprobs": 2})
}

async fn with_key(gateway: &TestGateway, key: &str, body: &Value) -> Value {
    let request = String::from_utf8(post_bytes("/generate", body.to_string().as_bytes())).unwrap();
    let request = request.replacen("\r\n", &format!("\r\nauthorization: Bearer {key}\r\n"), 1);
    let answer = gateway.raw(request.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["cached_tokens"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_prompt_again_is_found_and_answered_the_same() {
    let gateway = TestGateway::start().await;
    let cold = gateway.generate(asked("One.")).await.json();
    let warm = gateway.generate(asked("One.")).await.json();
    let other = gateway.generate(asked("Two.")).await.json();
    let prompt = cold["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 32, "{cold}");
    assert_eq!((cached(&cold), cached(&warm)), (0, (prompt - 1) / 16 * 16));
    assert!((16..=cached(&warm)).contains(&cached(&other)), "{other}");
    assert_eq!((&warm["text"], &warm["logprobs"]), (&cold["text"], &cold["logprobs"]));
    let asked = 2 * prompt + other["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(gateway.metric("engine_prefix_cache_lookups_total", "").await, asked as f64);
    assert_eq!(gateway.metric("engine_prefix_cache_hits_total", "").await, (cached(&warm) + cached(&other)) as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_that_another_caller_asked() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "one\ntwo\n").unwrap();
    let gateway = TestGateway::start_with(|config| config.auth.keys_file = Some(keys)).await;
    let mut counts = Vec::new();
    for key in ["one", "two", "one", "two"] {
        counts.push(cached(&with_key(&gateway, key, &asked("One.")).await));
    }
    assert_eq!(counts[..2], [0, 0]);
    assert!(counts[2] > 0 && counts[2] == counts[3], "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cache_nothing_is_looked_for() {
    let gateway = TestGateway::start_with(|config| config.engine.prefix_cache = false).await;
    for _ in 0..2 {
        assert_eq!(cached(&gateway.generate(asked("One.")).await.json()), 0);
    }
    assert_eq!(gateway.metric("engine_prefix_cache_lookups_total", "").await, 0.0);
}
