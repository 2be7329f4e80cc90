//! Every span is accounted for, whatever the collector does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::trace::{Span as _, Tracer};

use super::{Collector, LIMITS, ScriptedExporter, telemetry};
use crate::telemetry::{SpanCounts, Telemetry, export::Limits};

const SPANS: u64 = 50_000;

/// Ends spans on four threads, as fast as they can, and says how long the slowest `end` took.
fn end_spans(telemetry: &Telemetry) -> Duration {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut slowest = Duration::ZERO;
                    for _ in 0..SPANS / 4 {
                        let mut span = telemetry.inner.tracer.start("span");
                        let before = Instant::now();
                        span.end();
                        slowest = slowest.max(before.elapsed());
                    }
                    slowest
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or_default()
    })
}

fn account(collector: Collector, limits: Limits, shutdown: Duration) -> (SpanCounts, ScriptedExporter) {
    let exporter = ScriptedExporter::new(collector);
    let telemetry = telemetry(&exporter, limits);
    let slowest = end_spans(&telemetry);
    assert!(slowest < Duration::from_secs(1), "ending a span took {slowest:?}");
    let before = Instant::now();
    let counts = telemetry.shutdown(shutdown);
    assert!(before.elapsed() < shutdown + Duration::from_secs(2), "shutting down took {:?}", before.elapsed());
    assert_eq!(counts.created, SPANS);
    assert_eq!(counts.created, counts.exported + counts.dropped + counts.failed, "{counts:?}");
    assert_eq!(counts.exported, exporter.taken().len() as u64);
    (counts, exporter)
}

#[test]
fn a_quick_collector_gets_every_span() {
    let (counts, _) = account(Collector::Takes, LIMITS, Duration::from_secs(10));
    assert_eq!(counts.exported, SPANS);
}

#[test]
fn a_collector_that_takes_50_ms_gets_every_span() {
    let (counts, _) = account(Collector::TakesAfter(Duration::from_millis(50)), LIMITS, Duration::from_secs(10));
    assert_eq!(counts.exported, SPANS);
}

#[test]
fn a_collector_that_takes_2_s_gets_what_the_time_to_shut_down_allows() {
    let (counts, _) = account(Collector::TakesAfter(Duration::from_secs(2)), LIMITS, Duration::from_secs(3));
    // One round of exports is done, the second is given up. How the spans lie in batches depends on the threads: of
    // small ones some are still queued then, and dropped.
    assert!(counts.exported > 0 && counts.failed > 0, "{counts:?}");
}

#[test]
fn a_collector_that_refuses_fails_every_span() {
    let (counts, _) = account(Collector::Refuses, LIMITS, Duration::from_secs(10));
    assert_eq!(counts.failed, SPANS);
}

#[test]
fn a_collector_that_refuses_now_and_then_gets_the_rest() {
    let limits = Limits { batch: 512, ..LIMITS };
    let (counts, _) = account(Collector::RefusesEverySecond, limits, Duration::from_secs(10));
    assert!(counts.exported > 0 && counts.failed > 0, "{counts:?}");
}

#[test]
fn what_a_collector_rejects_of_a_batch_has_failed() {
    let (counts, exporter) = account(Collector::RejectsOfEach(3), LIMITS, Duration::from_secs(10));
    let calls = exporter.calls.lock().unwrap().clone();
    assert_eq!(counts.failed, calls.iter().map(|spans| *spans.min(&3) as u64).sum::<u64>());
    assert!(counts.failed > 0);
}

#[test]
fn a_collector_that_hangs_costs_its_batches_and_the_queue_stays_bounded() {
    let limits = Limits { queue: 1_000, batch: 100, export_timeout: Duration::from_millis(100), ..LIMITS };
    let (counts, _) = account(Collector::Hangs, limits, Duration::from_millis(300));
    assert_eq!(counts.exported, 0);
    assert!(counts.dropped > 0 && counts.failed > 0, "{counts:?}");
}

#[test]
fn an_exporter_that_panics_fails_its_batches_only() {
    let (counts, _) = account(Collector::Panics, LIMITS, Duration::from_secs(10));
    assert_eq!(counts.failed, SPANS);
}

#[test]
fn a_flush_exports_what_is_queued_and_a_second_shutdown_changes_nothing() {
    let exporter = ScriptedExporter::new(Collector::Takes);
    let telemetry = telemetry(&exporter, Limits { delay: Duration::from_secs(3600), ..LIMITS });
    telemetry.inner.tracer.start("one").end();
    assert!(telemetry.flush());
    assert_eq!(telemetry.span_counts(), SpanCounts { created: 1, exported: 1, ..SpanCounts::default() });
    let counts = telemetry.shutdown(Duration::from_secs(5));
    assert_eq!(telemetry.shutdown(Duration::from_secs(5)), counts);
}

#[test]
fn shutting_down_on_the_only_worker_of_a_runtime_does_not_hang() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exporter = ScriptedExporter::new(Collector::TakesAfter(Duration::from_millis(20)));
    let telemetry = Arc::new(telemetry(&exporter, LIMITS));
    let counts = runtime.block_on(async {
        telemetry.inner.tracer.start("one").end();
        telemetry.shutdown(Duration::from_secs(10))
    });
    assert_eq!(counts.exported, 1);
}

#[test]
fn a_batch_stays_below_what_collectors_take() {
    let exporter = ScriptedExporter::new(Collector::Takes);
    let telemetry = telemetry(&exporter, Limits { delay: Duration::from_secs(3600), ..LIMITS });
    for _ in 0..400 {
        let mut span = telemetry.inner.tracer.start("large");
        span.set_attribute(opentelemetry::KeyValue::new("text", "x".repeat(32 << 10)));
        span.end();
    }
    telemetry.shutdown(Duration::from_secs(10));
    let calls = exporter.calls.lock().unwrap().clone();
    assert_eq!(calls.iter().sum::<usize>(), 400);
    assert!(calls.iter().all(|spans| spans * (32 << 10) < 4 << 20), "{calls:?}");
}
