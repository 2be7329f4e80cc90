//! What a client says stays out of spans and logs, unless its content is to be captured; then it is redacted.

use std::io::Write;

use serde_json::{Value, json};
use tests::{
    collector::Collector,
    gateway::{Gateway, Launch},
};

const SECRET: &str = "hunter2-4711";

/// Logs all that the gateway itself has to say, and of its libraries what operators may turn on.
fn talkative(collector: &Collector) -> Launch {
    Gateway::traced(&collector.url()).flag("--log-filter", "debug,gateway=trace")
}

/// Asks in every way that carries the secret; gives the trace of the one that was answered.
async fn ask(gateway: &Gateway, key: &str) -> anyhow::Result<String> {
    let sane = json!({"prompt": format!("say {SECRET}"), "raw": true, "max_tokens": 4, "ignore_eos": true,
        "stop": [SECRET]});
    let with = |change: fn(&mut Value)| {
        let mut body = sane.clone();
        change(&mut body);
        body
    };
    let bodies = [
        with(|body| body["model"] = SECRET.into()),
        with(|body| body["max_tokens"] = SECRET.into()),
        with(|body| body["stop"] = json!({SECRET: 1})),
        json!({"prompt": 1, SECRET: SECRET}),
        json!(SECRET),
    ];
    for body in bodies {
        let asked = gateway.generate(&body).bearer_auth(key).header("x-request-id", format!("{SECRET} x"));
        assert!(asked.send().await?.status().is_client_error(), "{body}");
    }
    let refused = gateway.generate(&sane).bearer_auth(SECRET).header("cookie", SECRET).send().await?;
    assert_eq!(refused.status(), if key.is_empty() { 200 } else { 401 });
    let asked = gateway.generate(&sane).header("user-agent", SECRET).bearer_auth(key);
    let answer: Value = asked.send().await?.json().await?;
    Ok(answer["trace_id"].as_str().unwrap_or_default().to_owned())
}

/// Everything exported and logged, as text.
fn said(collector: &Collector, gateway: &Gateway) -> String {
    format!("{:?} {:?}", collector.spans(), gateway.log())
}

#[tokio::test]
async fn nothing_a_client_says_is_exported_or_logged() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let mut keys = tempfile::NamedTempFile::new()?;
    writeln!(keys, "key-{SECRET}")?;
    let gateway = talkative(&collector).flag("--api-keys-file", keys.path().display()).start().await?;
    let trace = ask(&gateway, &format!("key-{SECRET}")).await?;
    let trace = collector.trace(&trace).await?;
    assert_eq!(trace.operation().unwrap().attribute("gen_ai.input.messages"), None);
    let said = said(&collector, &gateway);
    assert!(said.contains("POST /generate") && !said.contains(SECRET), "{said}");
    Ok(())
}

#[tokio::test]
async fn captured_content_is_in_two_attributes_and_nowhere_else() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = configured(&collector, "capture_content = true").await?;
    let trace = ask(&gateway, "").await?;
    let trace = collector.trace(&trace).await?;
    assert!(trace.operation().unwrap().attribute("gen_ai.input.messages").unwrap().contains(SECRET));
    for span in &mut collector.spans() {
        for captured in ["gen_ai.input.messages", "gen_ai.output.messages"] {
            span.attributes.remove(captured);
        }
        assert!(!format!("{span:?}").contains(SECRET), "{span:?}");
    }
    assert!(!format!("{:?}", gateway.log()).contains(SECRET));
    Ok(())
}

#[tokio::test]
async fn what_is_to_be_redacted_is_not_even_in_captured_content() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = configured(&collector, "capture_content = true\nredact = ['hunter\\d-\\d+']").await?;
    let trace = ask(&gateway, "").await?;
    let trace = collector.trace(&trace).await?;
    let captured = trace.operation().unwrap().attribute("gen_ai.input.messages").unwrap();
    assert!(captured.contains("say [redacted]"), "{captured}");
    assert!(!said(&collector, &gateway).contains(SECRET));
    Ok(())
}

/// A gateway whose `[telemetry]` table holds `settings`.
async fn configured(collector: &Collector, settings: &str) -> anyhow::Result<Gateway> {
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "[telemetry]\n{settings}")?;
    talkative(collector).flag("--config", file.path().display()).start().await
}
