//! Spans of engine steps, and their links with the requests that were in them.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use engine::{EngineStats, MachineLimits, Stamps, StepReport, StepStart, Work};
use http::HeaderMap;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;

use super::{Collector, LIMITS, ScriptedExporter, configured};
use crate::{
    config::TelemetryConfig,
    ledger::{Facts, Ledger, Outcome},
    telemetry::{
        ClosedRequest, RequestTrace, StepTag, Telemetry,
        engine_state::{EngineFacts, WatchedEngine},
    },
};

pub(super) const FACTS: EngineFacts = EngineFacts {
    limits: Some(MachineLimits { bytes_per_second: 1e6, operations_per_second: 8e4 }),
    max_batch: 16,
    max_step_tokens: 128,
    model_bytes: 5000,
    kv_bytes: 1200,
};

/// A step in which `tags` are for the first time.
pub(super) fn report(number: u64, tags: &[u64]) -> StepReport {
    let millis = Duration::from_millis;
    StepReport {
        start: StepStart { number, started: Instant::now(), tags: tags.to_vec(), new_tags: tags.to_vec() },
        duration: millis(16),
        plan: millis(1),
        forward: millis(10),
        device: None,
        sample: millis(2),
        send: millis(3),
        work: Work { bytes: 9000, operations: 200 },
        sequences: 3,
        prefill_tokens: 40,
        decode_tokens: 2,
        kv_blocks_used: 3,
        kv_blocks_total: 12,
    }
}

/// A telemetry with an engine, and where its spans go.
fn watched(per_second: f64) -> (Telemetry, ScriptedExporter) {
    let exporter = ScriptedExporter::new(Collector::Takes);
    let config = TelemetryConfig { step_spans_per_second: Some(per_second), ..TelemetryConfig::default() };
    let telemetry = configured(&exporter, LIMITS, &config);
    telemetry.watch(WatchedEngine { facts: FACTS, stats: Box::new(EngineStats::default), memory: Box::new(|| None) });
    (telemetry, exporter)
}

/// A request in the engine's hands.
struct Open {
    trace: RequestTrace,
    tag: StepTag,
    ledger: Ledger,
}

fn open(telemetry: &Telemetry, headers: &HeaderMap) -> Open {
    let ledger = Ledger::start();
    let trace = telemetry.begin("POST", "/generate", headers, &ledger);
    let tag = telemetry.tag(&trace);
    Open { trace, tag, ledger }
}

/// Ends a request that was scheduled at `scheduled` and has its first token at `first_token`.
fn close(telemetry: &Telemetry, open: Open, [scheduled, first_token]: [Instant; 2]) {
    let Open { trace, tag, mut ledger } = open;
    drop(tag);
    (ledger.received, ledger.tokenized) = (Some(ledger.started), Some(ledger.started));
    let end = first_token + Duration::from_secs(3600);
    ledger.stamps = Stamps { scheduled: Some(scheduled), first_token: Some(first_token), ..Stamps::default() };
    (ledger.decoded, ledger.closed) = (Some(end), Some(end));
    telemetry.finish(trace, ClosedRequest { ledger: &ledger, facts: &Facts::default(), outcome: Outcome::Stop });
}

/// Tells of steps at these milliseconds after `base`, all with `tags`.
fn run(telemetry: &Telemetry, base: Instant, millis: impl IntoIterator<Item = u64>, tags: &[u64]) {
    let mut observer = telemetry.step_observer();
    for (number, millis) in (1..).zip(millis) {
        let mut report = report(number, tags);
        report.start.started = base + Duration::from_millis(millis);
        observer.begun(&report.start);
        observer.computed(&report);
    }
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn linked(span: &SpanData) -> HashSet<SpanId> {
    span.links.iter().map(|link| link.span_context.span_id()).collect()
}

fn ids(spans: &[&SpanData]) -> HashSet<SpanId> {
    spans.iter().map(|span| span.span_context.span_id()).collect()
}

#[test]
fn a_step_and_its_requests_link_each_other() {
    let (telemetry, exporter) = watched(1e6);
    let (first, second) = (open(&telemetry, &HeaderMap::new()), open(&telemetry, &HeaderMap::new()));
    let base = Instant::now();
    let tags = [first.tag.number(), second.tag.number(), 999];
    run(&telemetry, base, 0..5, &tags);
    let at = |millis| base + Duration::from_millis(millis);
    close(&telemetry, first, [at(0), at(2)]);
    close(&telemetry, second, [at(0), at(1)]);
    telemetry.shutdown(Duration::from_secs(10));

    let spans = exporter.taken();
    let (steps, servers) = (named(&spans, "engine.step"), named(&spans, "POST /generate"));
    assert_eq!((steps.len(), servers.len()), (5, 2));
    let mut traces: HashSet<_> = servers.iter().map(|span| span.span_context.trace_id()).collect();
    for step in &steps {
        assert!(traces.insert(step.span_context.trace_id()), "a trace of its own");
        assert_eq!(step.parent_span_id, SpanId::INVALID);
        assert_eq!(linked(step), ids(&servers));
    }
    for (phase, expected) in [("prefill", [&steps[..2], &steps[..1]]), ("decode", [&steps[2..], &steps[1..]])] {
        let phases = named(&spans, phase);
        assert_eq!(phases.iter().map(|span| linked(span)).collect::<Vec<_>>(), expected.map(ids), "{phase}");
    }
    assert!(named(&spans, "queue").iter().all(|span| span.links.is_empty()));

    let step = steps[1];
    assert_eq!(step.end_time.duration_since(step.start_time).ok(), Some(Duration::from_millis(16)));
    let attributes: Vec<_> = step.attributes.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    assert_eq!(
        attributes,
        [
            "engine.step.number=2",
            "engine.step.batch_size=3",
            "engine.step.prefill_tokens=40",
            "engine.step.decode_tokens=2",
            "engine.step.plan_ms=1",
            "engine.step.forward_ms=10",
            "engine.step.sample_ms=2",
            "engine.step.send_ms=3",
            "engine.kv.usage=0.25",
            "engine.memory_bandwidth.utilization=0.9",
            "engine.compute.utilization=0.25",
        ]
    );
}

#[test]
fn a_step_on_a_gpu_says_how_long_that_computed_and_is_measured_by_it() {
    let (telemetry, exporter) = watched(1e6);
    let mut observer = telemetry.step_observer();
    let step = StepReport { device: Some(Duration::from_millis(5)), ..report(1, &[]) };
    observer.begun(&step.start);
    observer.computed(&step);
    telemetry.shutdown(Duration::from_secs(10));
    let spans = exporter.taken();
    let told = |name: &str| {
        let of = |span: &SpanData| span.attributes.iter().find(|pair| pair.key.as_str() == name).cloned();
        named(&spans, "engine.step").into_iter().find_map(of).map(|pair| pair.value.to_string())
    };
    for (name, expected) in [
        ("engine.step.device_ms", "5"),
        ("engine.step.forward_ms", "10"),
        ("engine.memory_bandwidth.utilization", "1.8"),
        ("engine.compute.utilization", "0.5"),
    ] {
        assert_eq!(told(name).as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn a_step_that_begins_while_another_is_under_way_has_its_own_span() {
    let (telemetry, exporter) = watched(1e6);
    let mut observer = telemetry.step_observer();
    let steps = [1, 2, 3, 4].map(|number| {
        let mut step = StepReport { sequences: number as usize, ..report(number, &[]) };
        step.start.started += Duration::from_millis(number);
        step
    });
    observer.begun(&steps[0].start);
    for pair in steps.windows(2) {
        observer.begun(&pair[1].start);
        observer.computed(&pair[0]);
    }
    observer.computed(&steps[3]);
    telemetry.shutdown(Duration::from_secs(10));
    let spans = exporter.taken();
    let told = |span: &SpanData| -> Vec<_> { span.attributes[..2].iter().map(|pair| pair.value.to_string()).collect() };
    let told: Vec<_> = named(&spans, "engine.step").into_iter().map(told).collect();
    assert_eq!(told, ["1", "2", "3", "4"].map(|number| [number; 2]));
}

#[test]
fn steps_are_sampled_in_time_however_short_they_are() {
    for (per_second, every, expected) in [(10.0, 1, 50), (10.0, 70, 36), (10.0, 300, 17), (0.5, 10, 3), (0.0, 10, 0)] {
        let (telemetry, exporter) = watched(per_second);
        run(&telemetry, Instant::now(), (0..5000).step_by(every), &[]);
        let counts = telemetry.shutdown(Duration::from_secs(10));
        assert_eq!(counts.created, expected, "{per_second} per second, a step every {every} ms");
        assert_eq!(named(&exporter.taken(), "engine.step").len() as u64, expected);
    }
}

#[test]
fn a_request_that_is_not_sampled_is_not_linked_and_leaves_nothing() {
    let (telemetry, exporter) = watched(1e6);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let unsampled = HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())]);
    let open = open(&telemetry, &unsampled);
    let base = Instant::now();
    run(&telemetry, base, 0..3, &[open.tag.number()]);
    close(&telemetry, open, [base, base]);
    telemetry.shutdown(Duration::from_secs(10));
    let spans = exporter.taken();
    assert_eq!(spans.len(), 3, "its own spans go nowhere");
    assert!(spans.iter().all(|span| span.name == "engine.step" && span.links.is_empty()));
}

#[test]
fn links_are_bounded_both_ways() {
    let (telemetry, exporter) = watched(1e6);
    let requests: Vec<_> = (0..200).map(|_| open(&telemetry, &HeaderMap::new())).collect();
    let tags: Vec<_> = requests.iter().map(|open| open.tag.number()).collect();
    let base = Instant::now();
    run(&telemetry, base, 0..100, &tags);
    for open in requests {
        close(&telemetry, open, [base, base + Duration::from_millis(50)]);
    }
    telemetry.shutdown(Duration::from_secs(10));
    let spans = exporter.taken();
    assert!(named(&spans, "engine.step").iter().all(|step| step.links.len() == 128));
    for phase in ["prefill", "decode"] {
        let links: Vec<_> = named(&spans, phase).iter().map(|span| span.links.len()).collect();
        assert!(links.iter().all(|count| *count <= 32), "{phase}: {links:?}");
        assert_eq!(links.iter().filter(|count| **count > 0).count(), 128);
    }
}

#[test]
fn a_request_is_running_from_its_first_step_and_forgotten_at_its_end() {
    let (telemetry, _) = watched(0.0);
    let active = |state: &str| {
        let (text, series) = (telemetry.render_prometheus(), format!("gateway_requests_active{{state=\"{state}\"}}"));
        text.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse::<i64>().ok()).unwrap()
    };
    let open = open(&telemetry, &HeaderMap::new());
    assert_eq!((active("waiting"), active("running")), (1, 0));
    let mut observer = telemetry.step_observer();
    let mut step = report(1, &[open.tag.number()]);
    observer.begun(&step.start);
    assert_eq!((active("waiting"), active("running")), (0, 1), "before the step is computed");
    step.start.new_tags.clear();
    observer.begun(&step.start);
    let Open { trace, tag, .. } = open;
    drop(trace);
    assert_eq!((active("waiting"), active("running")), (0, 1), "the engine may still have it");
    drop(tag);
    assert_eq!((active("waiting"), active("running")), (0, 0));
    assert!(telemetry.inner.tagged.is_empty());
    step.start.new_tags.clone_from(&step.start.tags);
    observer.begun(&step.start);
    assert_eq!((active("waiting"), active("running")), (0, 0), "a tag that is gone is nobody's");
}
