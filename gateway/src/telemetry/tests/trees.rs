//! The spans of a request, for every way it can end.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use engine::{Blocked, Interruption, InterruptionCause, PhaseSteps, Stamps, Usage};
use http::HeaderMap;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

use super::{Collector, LIMITS, ScriptedExporter, telemetry};
use crate::{
    ledger::{Asked, Content, Facts, Ledger, Outcome, Phase},
    telemetry::{ClosedRequest, span_times},
};

const STEP: Duration = Duration::from_millis(7);

/// A request that ended in `last`, each phase taking 7 ms.
fn ledger(last: Phase) -> Ledger {
    let started = Instant::now();
    let mark = |phase: Phase| (phase < last).then(|| started + STEP * (phase as u32 + 1));
    Ledger {
        started,
        started_wall: SystemTime::now(),
        received: mark(Phase::Receive),
        tokenized: mark(Phase::Tokenize),
        stamps: Stamps {
            queued: mark(Phase::Tokenize),
            scheduled: mark(Phase::Queue),
            first_token: mark(Phase::Prefill),
            last_token: mark(Phase::Decode),
            usage: Usage { prompt_tokens: 12, completion_tokens: 8, cached_tokens: 3 },
            steps: 8,
            ..Stamps::default()
        },
        decoded: mark(Phase::Decode),
        closed: Some(started + STEP * (last as u32 + 1)),
    }
}

fn facts() -> Facts {
    Facts {
        request_id: "request-1".to_owned(),
        response_id: Some("gen-1".to_owned()),
        model: Some("demo".to_owned()),
        stream: Some(true),
        asked: Asked { stream: true, max_tokens: Some(8), temperature: Some(0.7), ..Asked::default() },
        queue_depth: Some(2),
        status: Some(200),
        bytes_sent: 99,
        ..Facts::default()
    }
}

fn spans(headers: &HeaderMap, ledger: &Ledger, facts: &Facts, outcome: Outcome) -> HashMap<String, SpanData> {
    let exporter = ScriptedExporter::new(Collector::Takes);
    let telemetry = telemetry(&exporter, LIMITS);
    let trace = telemetry.begin("POST", "/generate", headers, ledger);
    telemetry.finish(trace, ClosedRequest { ledger, facts, outcome });
    telemetry.shutdown(Duration::from_secs(10));
    exporter.taken().into_iter().map(|span| (span.name.to_string(), span)).collect()
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key.as_str() == key)?;
    Some(pair.value.to_string())
}

#[test]
fn the_tree_is_whole_wherever_a_request_ends() {
    for last in Phase::ALL {
        let ledger = ledger(last);
        let spans = spans(&HeaderMap::new(), &ledger, &facts(), Outcome::Cancelled);
        let phases = last as usize + 1;
        assert_eq!(spans.len(), 2 + phases, "{last:?}");
        let server = &spans["POST /generate"];
        let operation = &spans["text_completion demo"];
        assert_eq!(server.span_kind, SpanKind::Server);
        assert_eq!(operation.parent_span_id, server.span_context.span_id());
        let started = span_times::truncated(ledger.started_wall);
        let mut until = started;
        for phase in Phase::ALL.into_iter().take(phases) {
            let span = &spans[phase.as_str()];
            assert_eq!(span.parent_span_id, operation.span_context.span_id());
            assert_eq!(span.start_time, until, "{phase:?} begins where the one before ends");
            until += STEP;
            let gap = if phase == last { Duration::ZERO } else { Duration::from_micros(1) };
            assert_eq!(span.end_time, until - gap);
            assert_eq!(text(span, "gateway.duration_ms").as_deref(), Some("7"));
        }
        assert_eq!((server.start_time, server.end_time), (started, until));
        assert_eq!((operation.start_time, operation.end_time), (started, until));
        for span in spans.values() {
            let is_marked = ["POST /generate", "text_completion demo", last.as_str()].contains(&span.name.as_ref());
            assert_eq!(span.status, if is_marked { Status::error("the client left") } else { Status::Unset });
            assert_eq!(text(span, "error.type").as_deref(), is_marked.then_some("client_disconnected"));
        }
    }
}

#[test]
fn a_whole_answer_is_described() {
    let spans = spans(&HeaderMap::new(), &ledger(Phase::Deliver), &facts(), Outcome::Stop);
    let operation = &spans["text_completion demo"];
    for (key, value) in [
        ("gen_ai.operation.name", "text_completion"),
        ("gen_ai.request.model", "demo"),
        ("gen_ai.request.temperature", "0.7"),
        ("gen_ai.response.finish_reasons", "[\"stop\"]"),
        ("gen_ai.usage.input_tokens", "12"),
        ("gen_ai.usage.output_tokens", "8"),
        ("gen_ai.usage.cache_read.input_tokens", "3"),
        ("gateway.request_id", "request-1"),
    ] {
        assert_eq!(text(operation, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(operation.events.iter().map(|event| event.name.as_ref()).collect::<Vec<_>>(), ["first_token"]);
    assert_eq!(operation.status, Status::Unset);
    assert_eq!(text(operation, "gen_ai.input.messages"), None);
    let server = &spans["POST /generate"];
    assert_eq!(text(server, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(text(server, "error.type"), None);
    assert_eq!(text(&spans["decode"], "gateway.tpot_ms").as_deref(), Some("1"));
    assert_eq!(text(&spans["queue"], "gateway.queue_depth").as_deref(), Some("2"));
    for (phase, key, value) in [
        ("tokenize", "gateway.prompt_tokens", "12"),
        ("prefill", "gateway.prompt_tokens", "12"),
        ("prefill", "gateway.cached_tokens", "3"),
        ("prefill", "gateway.tokens_per_second", "1285.714"),
        ("decode", "gateway.completion_tokens", "8"),
        ("decode", "gateway.tokens_per_second", "1000"),
        ("deliver", "gateway.bytes_sent", "99"),
    ] {
        assert_eq!(text(&spans[phase], key).as_deref(), Some(value), "{phase} {key}");
    }
}

#[test]
fn conventions_for_models_are_for_the_operation_alone_and_those_for_http_for_the_server() {
    let spans = spans(&HeaderMap::new(), &ledger(Phase::Deliver), &facts(), Outcome::Stop);
    for (name, span) in spans {
        let has = |prefix: &str| span.attributes.iter().any(|pair| pair.key.as_str().starts_with(prefix));
        assert_eq!(has("gen_ai."), name == "text_completion demo", "{name}");
        assert_eq!(has("http."), name == "POST /generate", "{name}");
    }
}

/// What the operation's span says of the question, all but the model.
fn question(asked: Asked) -> Vec<String> {
    let spans = spans(&HeaderMap::new(), &ledger(Phase::Deliver), &Facts { asked, ..facts() }, Outcome::Stop);
    let told = spans["text_completion demo"].attributes.iter().filter(|pair| {
        let key = pair.key.as_str();
        key.starts_with("gen_ai.request.") && key != "gen_ai.request.model"
            || key == "gen_ai.response.time_to_first_chunk"
            || key == "gateway.seed"
    });
    told.map(|pair| format!("{}={}", pair.key, pair.value)).collect()
}

#[test]
fn nothing_is_said_to_be_asked_for_that_was_not() {
    assert_eq!(question(Asked::default()), [""; 0]);
    let some = Asked {
        temperature: Some(0.0),
        top_p: Some(0.95),
        top_k: Some(40),
        presence_penalty: Some(-0.1),
        frequency_penalty: Some(0.0),
        seed: Some(i64::MAX as u64),
        ..Asked::default()
    };
    assert_eq!(
        question(some),
        [
            "gen_ai.request.temperature=0",
            "gen_ai.request.top_p=0.95",
            "gen_ai.request.top_k=40",
            "gen_ai.request.presence_penalty=-0.1",
            "gen_ai.request.frequency_penalty=0",
            "gen_ai.request.seed=9223372036854775807",
        ]
    );
    for seed in [1 << 63, u64::MAX] {
        let told = question(Asked { seed: Some(seed), ..Asked::default() });
        assert_eq!(told, [format!("gateway.seed={seed}")], "no attribute of the conventions holds it");
    }
    let streamed = question(Asked { stream: true, ..Asked::default() });
    assert_eq!(streamed, ["gen_ai.request.stream=true", "gen_ai.response.time_to_first_chunk=0.028"]);
}

#[test]
fn a_refusal_is_the_clients_fault_and_an_overload_ours() {
    let refused = Facts {
        model: None,
        status: Some(400),
        error_type: Some("unknown_field"),
        error: Some("unknown field promt".into()),
        ..facts()
    };
    let tree = spans(&HeaderMap::new(), &ledger(Phase::Receive), &refused, Outcome::Invalid);
    assert_eq!(tree.len(), 3);
    assert_eq!(tree["POST /generate"].status, Status::Unset);
    assert_eq!(text(&tree["POST /generate"], "error.message").as_deref(), Some("unknown field promt"));
    for name in ["text_completion", "receive"] {
        assert_eq!(text(&tree[name], "error.type").as_deref(), Some("unknown_field"));
        assert_eq!(tree[name].status, Status::error("unknown field promt"));
    }

    let overloaded = Facts { status: Some(503), ..facts() };
    let tree = spans(&HeaderMap::new(), &ledger(Phase::Queue), &overloaded, Outcome::Overloaded);
    assert!(matches!(tree["POST /generate"].status, Status::Error { .. }));
    assert_eq!(text(&tree["POST /generate"], "error.type").as_deref(), Some("overloaded"));
}

#[test]
fn what_held_a_request_up_is_said_where_it_did() {
    let mut ledger = ledger(Phase::Deliver);
    let millis = Duration::from_millis;
    let at = |after: u64| ledger.started + millis(after);
    let interruption = |cause, from, until| Interruption { cause, from: at(from), until: Some(at(until)) };
    let interruptions = vec![
        interruption(InterruptionCause::Preempted, 22, 30),
        interruption(InterruptionCause::Stalled, 31, 33),
        Interruption { cause: InterruptionCause::Stalled, from: at(34), until: None },
    ];
    ledger.stamps.blocked = Blocked { batch: millis(2), kv: millis(4), ..Blocked::default() };
    ledger.stamps.interruptions = interruptions;
    ledger.stamps.prefill = PhaseSteps { steps: 2, sequences: 7, kv_thousandths: 500, ..PhaseSteps::default() };
    let decode = PhaseSteps { steps: 3, sequences: 4, stall: millis(2), preempted: millis(1), ..PhaseSteps::default() };
    ledger.stamps.decode = PhaseSteps { interference: Duration::from_micros(1500), ..decode };
    let spans = spans(&HeaderMap::new(), &ledger, &facts(), Outcome::Stop);
    for (phase, key, value) in [
        ("queue", "gateway.blocked_by", Some("kv")),
        ("queue", "gateway.blocked.batch_ms", Some("2")),
        ("queue", "gateway.blocked.kv_ms", Some("4")),
        ("queue", "gateway.blocked.fairness_ms", None),
        ("prefill", "gateway.steps", Some("2")),
        ("prefill", "gateway.mean_batch", Some("3.5")),
        ("prefill", "gateway.mean_kv_use", Some("0.25")),
        ("prefill", "gateway.preempted_ms", Some("0")),
        ("decode", "gateway.steps", Some("3")),
        ("decode", "gateway.mean_batch", Some("1.333")),
        ("decode", "gateway.stall_ms", Some("2")),
        ("decode", "gateway.preempted_ms", Some("1")),
        ("decode", "gateway.interference_ms", Some("1.5")),
    ] {
        assert_eq!(text(&spans[phase], key).as_deref(), value, "{phase} {key}");
    }
    let events = |phase: &str| -> Vec<String> {
        let told = spans[phase].events.iter().map(|event| {
            let pairs = event.attributes.iter().map(|pair| format!(" {}={}", pair.key, pair.value));
            event.name.to_string() + &pairs.collect::<String>()
        });
        told.collect()
    };
    assert_eq!(events("prefill"), ["preempted gateway.preempted_ms=8"]);
    assert_eq!(
        events("decode"),
        ["resumed gateway.preempted_ms=8", "stalled gateway.stall_ms=2", "resumed gateway.stall_ms=2", "stalled",]
    );
}

#[test]
fn content_is_recorded_when_it_was_captured() {
    let content = Content { prompt: "é".to_owned(), answer: "yes \"quoted\"".to_owned() };
    let spans =
        spans(&HeaderMap::new(), &ledger(Phase::Deliver), &Facts { content: Some(content), ..facts() }, Outcome::Stop);
    let operation = &spans["text_completion demo"];
    let answer: serde_json::Value = serde_json::from_str(&text(operation, "gen_ai.output.messages").unwrap()).unwrap();
    assert_eq!(answer[0]["parts"][0]["content"], "yes \"quoted\"");
    assert_eq!(answer[0]["finish_reason"], "stop");
    let prompt: serde_json::Value = serde_json::from_str(&text(operation, "gen_ai.input.messages").unwrap()).unwrap();
    assert_eq!(prompt[0]["parts"][0]["content"], "é");
}

#[test]
fn the_callers_trace_is_continued_if_it_is_one() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let inbound = |value: &str| HeaderMap::from_iter([("traceparent".parse().unwrap(), value.parse().unwrap())]);
    let begun = |value: &str| spans(&inbound(value), &ledger(Phase::Deliver), &facts(), Outcome::Stop);

    let continued = begun(&format!("00-{trace}-b7ad6b7169203331-01"));
    assert_eq!(continued.len(), 8);
    assert!(continued.values().all(|span| span.span_context.trace_id().to_string() == trace));
    let server = &continued["POST /generate"];
    assert_eq!(server.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(server.parent_span_is_remote && !continued["decode"].parent_span_is_remote);

    assert!(begun(&format!("00-{trace}-b7ad6b7169203331-00")).is_empty(), "the caller does not sample");

    let all_zero = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
    for malformed in ["", "00", "garbage", &all_zero, &format!("ff-{trace}-b7ad6b7169203331-01")] {
        let fresh = begun(malformed);
        assert_eq!(fresh.len(), 8, "{malformed}");
        assert_ne!(fresh["POST /generate"].span_context.trace_id().to_string(), trace);
    }
}

#[test]
fn ids_are_known_from_the_start() {
    let exporter = ScriptedExporter::new(Collector::Takes);
    let telemetry = telemetry(&exporter, LIMITS);
    let trace = telemetry.begin("POST", "/generate", &HeaderMap::new(), &Ledger::start());
    let (id, parent) = (trace.trace_id(), trace.traceparent());
    assert!(id.len() == 32 && parent.starts_with(&format!("00-{id}-")) && parent.ends_with("-01"));
    let (ledger, facts) = (ledger(Phase::Receive), facts());
    telemetry.finish(trace, ClosedRequest { ledger: &ledger, facts: &facts, outcome: Outcome::Invalid });
    telemetry.shutdown(Duration::from_secs(10));
    let taken = exporter.taken();
    let server = taken.iter().find(|span| span.span_kind == SpanKind::Server).unwrap();
    assert_eq!(format!("00-{}-{}-01", server.span_context.trace_id(), server.span_context.span_id()), parent);
}
