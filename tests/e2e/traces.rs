//! One whole trace per request, however it ends.

use serde_json::{Value, json};
use tests::{
    collector::Collector,
    gateway::Gateway,
    trace::{PHASES, Trace},
};

use crate::requests::{Caller, body, first_bytes, last_event, streamed};

/// The spans say the times of the ledger in the answer, and lie there to the microsecond; `deliver` goes on after the
/// answer was rendered.
pub(crate) fn agrees(trace: &Trace, timings: &Value) {
    let phases = trace.phases();
    assert_eq!(phases.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), PHASES);
    for span in phases {
        let told = timings["phases"][format!("{}_ms", span.name)].as_f64().unwrap();
        let nanos = (told * 1e6).round() as u64;
        let exact = span.exact_nanos().unwrap();
        match span.name.as_str() {
            "deliver" => assert!(exact >= nanos),
            name => assert_eq!(exact, nanos, "{name}"),
        }
        // Its start and its end may be cut, or pushed by phases before it that were next to nothing.
        assert!(span.nanos().abs_diff(exact) <= 12_000, "{span:?}");
    }
}

async fn started() -> anyhow::Result<(Collector, Gateway)> {
    let collector = Collector::grpc().await?;
    let gateway = Gateway::traced(&collector.url()).variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").start().await?;
    Ok((collector, gateway))
}

#[tokio::test]
async fn an_answer_and_its_trace_agree_whole_and_streamed() -> anyhow::Result<()> {
    let (collector, gateway) = started().await?;
    let answer: Value = gateway.generate(&body(8)).send().await?.json().await?;
    let trace = collector.trace(answer["trace_id"].as_str().unwrap()).await?;
    agrees(&trace, &answer["timings"]);
    let (server, operation) = (trace.server().unwrap(), trace.operation().unwrap());
    assert_eq!((server.name.as_str(), server.service.as_str()), ("POST /generate", "llm-inference-api"));
    assert!(operation.name.starts_with("text_completion "), "{}", operation.name);
    assert_eq!(operation.attribute("gen_ai.usage.output_tokens"), Some("8"));
    assert_eq!(operation.attribute("gen_ai.response.id"), answer["id"].as_str());
    assert_eq!(operation.events, ["first_token"]);
    assert_eq!(operation.attribute("gen_ai.input.messages"), None, "content was not asked for");
    assert!(!server.failed && !operation.failed);

    let text = gateway.generate(&streamed(8)).send().await?.text().await?;
    let last = last_event(&text).unwrap();
    let trace = collector.trace(last["trace_id"].as_str().unwrap()).await?;
    agrees(&trace, &last["timings"]);
    assert_eq!(trace.operation().unwrap().attribute("gateway.outcome"), Some("length"));
    Ok(())
}

#[tokio::test]
async fn the_callers_trace_is_continued_and_its_sampling_obeyed() -> anyhow::Result<()> {
    let (collector, gateway) = started().await?;
    let silent = Caller { sampled: false, ..Caller::new(1) };
    let answer: Value = silent.asks(gateway.generate(&body(2))).send().await?.json().await?;
    assert_eq!(answer["trace_id"], silent.trace_id);

    let caller = Caller::new(2);
    let response = caller.asks(gateway.generate(&body(2))).send().await?;
    assert!(response.headers()["traceresponse"].to_str()?.contains(&caller.trace_id));
    let trace = collector.trace(&caller.trace_id).await?;
    assert_eq!(trace.server().unwrap().parent, caller.span_id);
    assert!(collector.spans().iter().all(|span| span.trace_id == caller.trace_id), "the other was not sampled");
    Ok(())
}

#[tokio::test]
async fn a_refused_request_has_its_trace() -> anyhow::Result<()> {
    let (collector, gateway) = started().await?;
    let mut elsewhere = body(1);
    elsewhere["model"] = "another".into();
    let mut long = body(1);
    long["prompt"] = "x ".repeat(4 << 20).into();
    let cases = [
        (json!({"prompt": "x", "temperature": 9}), 400, "invalid_value", "temperature must be between 0 and 2"),
        (json!({"promt": "x"}), 400, "unknown_field", "unknown field promt"),
        (json!({"max_tokens": 4}), 400, "missing_field", "missing field prompt"),
        (elsewhere, 404, "model_not_found", "model: model not found"),
        (long, 413, "body_too_large", "the body is larger than 2097152 bytes"),
    ];
    for (number, (body, status, kind, description)) in (10..).zip(cases) {
        let caller = Caller::new(number);
        let response = caller.asks(gateway.generate(&body)).send().await?;
        assert_eq!(response.status(), status);
        let trace = collector.trace(&caller.trace_id).await?;
        assert_eq!(trace.last_phase(), Some("receive"));
        let (server, operation) = (trace.server().unwrap(), trace.operation().unwrap());
        assert_eq!(server.attribute("http.response.status_code"), Some(status.to_string().as_str()));
        assert!(!server.failed, "the fault is the client's");
        assert_eq!(server.attribute("error.message"), Some(description));
        for span in [operation, trace.phase("receive").unwrap()] {
            assert_eq!((span.attribute("error.type"), span.failed), (Some(kind), true));
            assert_eq!(span.description, description);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_cancelled_request_has_its_trace_up_to_where_it_was() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    let gateway = Gateway::traced(&collector.url())
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .flag("--max-batch", 1)
        .flag("--max-queue", 1)
        .flag("--max-step-tokens", 1)
        .start()
        .await?;
    // A prompt, token by token, and not an answer: an answer that is not read as fast as it is written is
    // paused, and makes room for the next request.
    let mut long = body(1);
    long["prompt"] = "why ".repeat(6_000).into();
    let prefilling = Caller::new(20);
    let occupying = tokio::spawn(prefilling.asks(gateway.generate(&long)).send());
    gateway.wait_for_metric("engine_sequences{state=\"running\"}", 1.0).await?;

    let queued = Caller::new(21);
    let waiting = tokio::spawn(queued.asks(gateway.generate(&body(1))).send());
    gateway.wait_for_metric("engine_sequences{state=\"waiting\"}", 1.0).await?;

    let refused = Caller::new(22);
    let response = refused.asks(gateway.generate(&body(1))).send().await?;
    assert_eq!(response.status(), 503);
    let trace = collector.trace(&refused.trace_id).await?;
    assert_eq!(trace.last_phase(), Some("queue"));
    assert_eq!(trace.operation().unwrap().attribute("error.type"), Some("overloaded"));
    assert!(trace.server().unwrap().failed, "the fault is ours");

    waiting.abort();
    cancelled_in(&collector.trace(&queued.trace_id).await?, "queue");
    occupying.abort();
    cancelled_in(&collector.trace(&prefilling.trace_id).await?, "prefill");
    gateway.wait_for_metric("engine_kv_blocks{state=\"used\"}", 0.0).await?;
    gateway.wait_for_metric("gateway_requests_finished_total{reason=\"cancelled\"}", 2.0).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_ends_in_decode() -> anyhow::Result<()> {
    let (collector, gateway) = started().await?;
    let caller = Caller::new(25);
    let stream = first_bytes(caller.asks(gateway.generate(&streamed(30_000))).send().await?).await?;
    drop(stream);
    cancelled_in(&collector.trace(&caller.trace_id).await?, "decode");
    gateway.wait_for_metric("engine_kv_blocks{state=\"used\"}", 0.0).await?;
    Ok(())
}

fn cancelled_in(trace: &Trace, phase: &str) {
    assert_eq!(trace.last_phase(), Some(phase));
    for span in [trace.server().unwrap(), trace.operation().unwrap(), trace.phase(phase).unwrap()] {
        assert_eq!(span.attribute("error.type"), Some("client_disconnected"));
        assert_eq!((span.failed, span.description.as_str()), (true, "the client left"));
    }
}

#[tokio::test]
async fn a_request_out_of_time_has_its_trace() -> anyhow::Result<()> {
    let collector = Collector::grpc().await?;
    let gateway = Gateway::traced(&collector.url())
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .flag("--request-timeout", "50ms")
        .start()
        .await?;
    let caller = Caller::new(40);
    let response = caller.asks(gateway.generate(&body(30_000))).send().await?;
    let status = response.status().as_u16();
    let trace = collector.trace(&caller.trace_id).await?;
    let operation = trace.operation().unwrap();
    assert_eq!(operation.attribute("gateway.outcome"), Some("deadline"), "status {status}");
    let last = trace.phases().pop().unwrap();
    for span in [trace.server().unwrap(), operation, last] {
        assert_eq!(span.attribute("error.type"), Some("deadline_exceeded"));
        assert_eq!((span.failed, span.description.as_str()), (true, "deadline: request_timeout is 0.05s"));
    }
    assert!(trace.phases().iter().filter(|span| span.failed).count() == 1);
    Ok(())
}
