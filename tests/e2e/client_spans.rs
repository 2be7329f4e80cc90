//! The load generator's own spans: above the server's, and none lost uncounted.

use serde_json::{Value, json};
use tests::{
    collector::{Behaviour, Collector},
    gateway::Gateway,
    load::{Load, Run},
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

fn load(collector: &Collector) -> Load {
    Load::of(2).flag("--max-tokens", 300).variable(ENDPOINT, collector.url())
}

fn rows(run: &Run) -> Vec<Value> {
    run.report["rows"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_span_is_the_root_of_every_trace() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = Gateway::traced(&collector.url()).start().await?;
    let run = load(&collector).run(gateway.url()).await?;
    let rows = rows(&run);
    let all = rows.len();
    assert!(all > 0);
    assert_eq!(run.report["client_spans"], json!({"created": all, "exported": all, "dropped": 0, "failed": 0}));
    for row in &rows {
        let trace = collector.trace(row["trace_id"].as_str().unwrap()).await?;
        let client = trace.client().expect("a client span");
        assert_eq!((client.service.as_str(), client.name.as_str()), ("loadgen", "POST /generate"));
        assert_eq!((client.parent.as_str(), client.failed), ("", false));
        assert_eq!(client.events, ["headers", "first_content", "last_content"]);
        assert_eq!(client.nanos(), 1000 * (micros(row, "end_us") - micros(row, "sent_us")));
        let tokens = row["output_tokens"].to_string();
        for (name, value) in [
            ("http.response.status_code", "200"),
            ("loadgen.user", row["user"].to_string().as_str()),
            ("loadgen.users", "2"),
            ("loadgen.output_tokens", tokens.as_str()),
        ] {
            assert_eq!(client.attribute(name), Some(value), "{name}");
        }
        for name in ["loadgen.scheduled_ms", "server.address", "server.port"] {
            assert!(client.attribute(name).is_some(), "{name}");
        }
        assert_eq!(client.attribute("gen_ai.usage.output_tokens"), None);
        assert!(trace.server().unwrap().nanos() > 0);
    }
    Ok(())
}

fn micros(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_travel_over_grpc_too() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    let gateway = Gateway::traced(&collector.url()).variable(PROTOCOL, "grpc").start().await?;
    let run = load(&collector).variable(PROTOCOL, "grpc").run(gateway.url()).await?;
    for row in rows(&run) {
        assert!(collector.trace(row["trace_id"].as_str().unwrap()).await?.client().is_some());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_has_its_span() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = Gateway::traced(&collector.url()).flag("--max-context", 64).start().await?;
    let run = load(&collector).flag("--prompt-words", 400).run(gateway.url()).await?;
    for row in rows(&run) {
        assert_eq!(row["error"], "http_400");
        let trace = collector.trace(row["trace_id"].as_str().unwrap()).await?;
        let client = trace.client().expect("a client span");
        assert!(client.failed);
        assert_eq!(client.attribute("error.type"), Some("http_400"));
        assert_eq!(client.attribute("http.response.status_code"), Some("400"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_nothing_costs_spans_and_no_figures() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    collector.behave(Behaviour::Refuse);
    let gateway = tests::gateway::Launch::default().start().await?;
    let run = load(&collector).run(gateway.url()).await?;
    let all = run.report["rows_drawn_from"].as_u64().unwrap();
    assert_eq!(run.report["requests"]["failed"], 0);
    assert!(all > 0);
    assert_eq!(run.report["client_spans"], json!({"created": all, "exported": 0, "dropped": 0, "failed": all}));
    assert!(run.printed.contains(&format!("of {all} client spans the collector refused {all}")), "{}", run.printed);
    Ok(())
}
