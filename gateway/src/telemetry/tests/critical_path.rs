//! Jaeger's page draws a critical path through each trace: the longest phase must be on it, whatever its times.
//!
//! The rule is that of jaeger-ui 1.76 and 2.20: from a span's end to the child that ends last, and from a child's start
//! to the sibling that ends last strictly before it. `CRITICAL_PATH_SEED` replays a run that failed.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use engine::Stamps;
use http::HeaderMap;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;

use super::{Collector, LIMITS, ScriptedExporter, telemetry};
use crate::{
    ledger::{Facts, Ledger, Outcome},
    telemetry::ClosedRequest,
};

const REQUESTS: usize = 4_000;

/// A span as the page has it: whole microseconds, start and duration each cut to them by themselves.
#[derive(Debug, Clone)]
struct Drawn {
    id: SpanId,
    parent: SpanId,
    name: String,
    start: u128,
    end: u128,
}

impl Drawn {
    fn new(span: &SpanData) -> Self {
        let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let start = nanos(span.start_time) / 1000;
        let duration = nanos(span.end_time).checked_sub(nanos(span.start_time)).expect("no span ends before it begins");
        Self {
            id: span.span_context.span_id(),
            parent: span.parent_span_id,
            name: span.name.to_string(),
            start,
            end: start + duration / 1000,
        }
    }
}

/// The names of the spans on the path.
fn critical_path(spans: &[Drawn]) -> Vec<&str> {
    let is_root = |span: &&Drawn| spans.iter().all(|other| other.id != span.parent);
    let (mut at, mut before) = (spans.iter().find(is_root).unwrap(), None);
    let mut path = Vec::new();
    loop {
        let end = before.unwrap_or(at.end);
        let earlier = |child: &&Drawn| child.parent == at.id && before.is_none_or(|before| child.end < before);
        let last = spans.iter().filter(earlier).max_by_key(|child| child.end);
        if last.map_or(at.start, |child| child.end) != end {
            path.push(at.name.as_str());
        }
        let next = last.map(|child| (child, None));
        let parent = || Some((spans.iter().find(|span| span.id == at.parent)?, Some(at.start)));
        match next.or_else(parent) {
            Some(next) => (at, before) = next,
            None => return path,
        }
    }
}

/// Xorshift: a seed is all that a run depends on.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A request whose phases take anything from nothing to seconds, and that ends anywhere.
fn ledger(random: &mut Random) -> Ledger {
    let mut ledger = Ledger::start();
    let nanos = random.below(1_000_000_000) as u32;
    ledger.started_wall = UNIX_EPOCH + Duration::new(1_800_000_000, nanos);
    let mut at = ledger.started;
    let mut next = || {
        let magnitude = 10_u64.pow(random.below(10) as u32);
        at += Duration::from_nanos(random.below(magnitude));
        at
    };
    let marks: Vec<_> = (0..6).map(|_| next()).collect();
    let passed = random.below(6) as usize;
    let mark = |index: usize| (index < passed).then_some(marks[index]);
    (ledger.received, ledger.tokenized, ledger.decoded) = (mark(0), mark(1), mark(4));
    ledger.stamps = Stamps { scheduled: mark(2), first_token: mark(3), last_token: mark(4), ..Stamps::default() };
    ledger.closed = Some(marks[passed]);
    ledger
}

/// Traces of as many requests, each with its ledger.
fn traces(seed: u64) -> Vec<(Ledger, Vec<SpanData>)> {
    let mut random = Random(seed);
    let exporter = ScriptedExporter::new(Collector::Takes);
    let telemetry = telemetry(&exporter, LIMITS);
    let begun = (0..REQUESTS).map(|_| {
        let ledger = ledger(&mut random);
        let trace = telemetry.begin("POST", "/generate", &HeaderMap::new(), &ledger);
        let id = trace.trace_id();
        telemetry
            .finish(trace, ClosedRequest { ledger: &ledger, facts: &Facts::default(), outcome: Outcome::Cancelled });
        (id, ledger)
    });
    let ledgers: Vec<_> = begun.collect();
    telemetry.shutdown(Duration::from_secs(10));
    let mut spans: BTreeMap<String, Vec<SpanData>> = BTreeMap::new();
    for span in exporter.taken() {
        spans.entry(span.span_context.trace_id().to_string()).or_default().push(span);
    }
    ledgers.into_iter().map(|(id, ledger)| (ledger, spans.remove(&id).unwrap())).collect()
}

fn seed() -> u64 {
    let seed = std::env::var("CRITICAL_PATH_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1);
    println!("CRITICAL_PATH_SEED={seed}");
    seed
}

#[test]
fn every_phase_is_on_the_critical_path_and_says_how_long_it_was() {
    for (ledger, spans) in traces(seed()) {
        let drawn: Vec<_> = spans.iter().map(Drawn::new).collect();
        let path = critical_path(&drawn);
        let intervals = ledger.intervals(ledger.closed.unwrap());
        assert_eq!(spans.len(), intervals.len() + 2);
        for interval in intervals {
            let name = interval.phase.as_str();
            assert!(path.contains(&name), "{name} is not on {path:?}: {drawn:?}");
            let span = spans.iter().find(|span| span.name == name).unwrap();
            let told = span.attributes.iter().find(|pair| pair.key.as_str() == "gateway.duration_ms").unwrap();
            let nanos = (told.value.to_string().parse::<f64>().unwrap() * 1e6).round();
            assert_eq!(nanos, (interval.end - interval.start).as_nanos() as f64);
        }
    }
}

#[test]
fn every_span_lies_within_the_one_above_and_begins_when_it_did() {
    let micros = Duration::from_micros;
    for (ledger, spans) in traces(seed()) {
        for span in &spans {
            if let Some(above) = spans.iter().find(|above| above.span_context.span_id() == span.parent_span_id) {
                assert!(above.start_time <= span.start_time && span.end_time <= above.end_time, "{span:?} {above:?}");
            }
        }
        for (before, interval) in ledger.intervals(ledger.closed.unwrap()).into_iter().enumerate() {
            let span = spans.iter().find(|span| span.name == interval.phase.as_str()).unwrap();
            // Each phase before may have been made longer by two microseconds, and what is cut is less than one.
            let (drawn, was) = (span.start_time, ledger.wall(interval.start));
            assert!(drawn + micros(1) > was && drawn <= was + micros(2 * before as u64), "{drawn:?} {was:?}");
        }
    }
}
