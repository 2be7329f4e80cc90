//! From the aggregates of a run to its figures: which window counts, and what it comes to.

use std::time::Duration;

use super::aggregate::{Aggregate, ErrorCount, Rate, Window};
use super::figures::{Counts, Latencies, PhaseRow, Phases, ServerCheck, Summary, Throughput, Tokens, WindowFacts};
use super::histogram::{Histogram, millis};
use super::verdict::{Thresholds, Verdict};
use crate::record::Phase;

/// Neighbouring events closer than this arrived in one piece.
const BUNCHED: Duration = Duration::from_micros(100);

impl Summary {
    /// The figures of `steady` where the run was long enough for it, of `whole` otherwise.
    ///
    /// Long enough: all users were started, the time with all of them is at least the time it took to start
    /// them, and at least one request sent in it succeeded.
    pub fn choose(whole: &Aggregate, steady: Option<&Aggregate>) -> Self {
        let (chosen, ramp_excluded) = match steady {
            Some(steady) if Self::worth_it(whole, steady) => (steady, steady.window.start_us > whole.window.start_us),
            _ => (whole, false),
        };
        let excluded_requests = whole.requests() - chosen.requests();
        let Window { start_us, end_us } = chosen.window;
        let window =
            WindowFacts { start_us, end_us, seconds: seconds(chosen.window), ramp_excluded, excluded_requests };
        Self::of(chosen, window)
    }

    fn worth_it(whole: &Aggregate, steady: &Aggregate) -> bool {
        let ramp = steady.window.start_us.saturating_sub(whole.window.start_us);
        steady.succeeded > 0 && steady.window.end_us.saturating_sub(steady.window.start_us) >= ramp
    }

    fn of(aggregate: &Aggregate, window: WindowFacts) -> Self {
        let latencies = Latencies {
            ttft: aggregate.ttft.distribution(),
            tpot: aggregate.tpot.distribution(),
            inter_token_gap: aggregate.gap.distribution(),
            latency: aggregate.latency.distribution(),
            ttft_from_schedule: aggregate.ttft_from_schedule.distribution(),
            latency_from_schedule: aggregate.latency_from_schedule.distribution(),
        };
        Self {
            window,
            requests: Counts {
                succeeded: aggregate.succeeded,
                failed: aggregate.failed,
                interrupted: aggregate.interrupted,
                cut: aggregate.cut,
            },
            verdicts: verdicts(&latencies),
            latencies_ms: latencies,
            throughput: throughput(aggregate.rate, aggregate.window),
            tokens: tokens(aggregate),
            errors: aggregate
                .errors
                .iter()
                .map(|(class, (count, example))| ErrorCount { class: *class, count: *count, example: example.clone() })
                .collect(),
            phases_ms: phases(aggregate),
            traces_joined: aggregate.traces_joined,
        }
    }
}

impl ServerCheck {
    /// Compares what this side saw over the whole run with what the server's histogram gained meanwhile.
    pub fn new(whole: &Aggregate, server_sum_s: f64, server_count: f64, round_trip: &Histogram) -> Option<Self> {
        let client = millis(whole.ttft.mean()?);
        let round_trip = millis(round_trip.mean()?);
        if server_count < 1.0 {
            return None;
        }
        let server = server_sum_s * 1e3 / server_count;
        let expected = server + round_trip;
        Some(Self {
            client_requests: whole.ttft.count(),
            server_requests: server_count as u64,
            client_mean_ttft: client,
            server_mean_ttft: server,
            round_trip,
            difference_percent: (client - expected) / expected * 100.0,
        })
    }
}

fn seconds(window: Window) -> f64 {
    window.end_us.saturating_sub(window.start_us) as f64 / 1e6
}

fn throughput(rate: Rate, window: Window) -> Throughput {
    let per_second = |amount: f64| match seconds(window) {
        0.0 => 0.0,
        seconds => amount / seconds,
    };
    Throughput {
        requests_per_s: per_second(rate.ended as f64),
        output_tokens_per_s: per_second(rate.output_tokens),
        input_tokens_per_s: per_second(rate.prompt_tokens as f64),
        mean_in_flight: per_second(rate.in_flight_us as f64 / 1e6),
    }
}

fn tokens(aggregate: &Aggregate) -> Tokens {
    let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    Tokens {
        input: aggregate.prompt_tokens,
        cached: aggregate.cached_tokens,
        output: aggregate.output_tokens,
        per_event: ratio(aggregate.output_tokens, aggregate.events),
        bunched_gaps: ratio(aggregate.gap.count_below(BUNCHED), aggregate.gap.count()),
        without_usage: aggregate.without_usage,
        implausible: aggregate.implausible.0,
        implausible_example: aggregate.implausible.1.clone(),
    }
}

fn verdicts(latencies: &Latencies) -> Vec<Verdict> {
    let ttft = latencies.ttft.map(|figures| Verdict::new("ttft", "p95", figures.p95, Thresholds::TTFT));
    let tpot = latencies.tpot.into_iter().flat_map(|figures| {
        [
            Verdict::new("tpot", "p50", figures.p50, Thresholds::TPOT),
            Verdict::new("tpot", "p95", figures.p95, Thresholds::TPOT),
        ]
    });
    ttft.into_iter().chain(tpot).collect()
}

fn phases(aggregate: &Aggregate) -> Option<Phases> {
    let latency = millis(aggregate.with_ledger.mean()?);
    // In the order a request goes through them; others follow in the order of their names.
    let place = |name: &str| Phase::named(name.strip_suffix("_ms")?).map(|phase| phase as usize);
    let mut names: Vec<&String> = aggregate.phases.keys().collect();
    names.sort_by_key(|name| (place(name).unwrap_or(Phase::ALL.len()), name.as_str()));
    let requests = aggregate.with_ledger.count();
    let row = |phase: &str, histogram: &Histogram| {
        let figures = histogram.distribution()?;
        // A phase that some requests never reached took them no time.
        let share = figures.mean * figures.count as f64 / requests as f64 / latency;
        Some(PhaseRow { phase: phase.into(), mean: figures.mean, p50: figures.p50, p95: figures.p95, share })
    };
    let mut rows: Vec<PhaseRow> = names
        .into_iter()
        .filter_map(|name| row(name.strip_suffix("_ms").unwrap_or(name), aggregate.phases.get(name)?))
        .collect();
    rows.extend(row("network + client", &aggregate.outside));
    let largest = rows.iter().max_by(|a, b| a.share.total_cmp(&b.share))?.phase.clone();
    Some(Phases { requests, rows, largest })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{Chunk, ErrorClass, Failure, RequestRecord, Timings, Usage};

    /// A request sent at `sent_ms` with 100 ms to the first of 5 tokens, 10 ms between them, 5 ms to the end.
    fn record(sent_ms: u64) -> RequestRecord {
        let sent_us = sent_ms * 1000;
        let chunk = |index: u64| Chunk { at_us: sent_us + 100_000 + index * 10_000, characters: 4, tokens: 1 };
        RequestRecord {
            user: 0,
            prompt: 0,
            max_tokens: 5,
            trace_id: "a".into(),
            span_id: "b".into(),
            scheduled_us: sent_us.saturating_sub(2000),
            sent_us,
            headers_us: Some(sent_us + 1000),
            end_us: sent_us + 145_000,
            status: Some(200),
            chunks: (0..5).map(chunk).collect(),
            usage: Some(Usage { prompt_tokens: 10, completion_tokens: 5, cached_tokens: 0 }),
            finish_reason: Some("stop".into()),
            server_trace_id: None,
            timings: Some(Timings {
                total_ms: 140.0,
                phases: BTreeMap::from([("prefill_ms".into(), 100.0), ("decode_ms".into(), 40.0)]),
                ..Timings::default()
            }),
            implausible: None,
            error: None,
        }
    }

    fn aggregate(start_ms: u64, end_ms: u64, records: &[RequestRecord]) -> Aggregate {
        let mut aggregate = Aggregate::new(Window { start_us: start_ms * 1000, end_us: end_ms * 1000 });
        records.iter().for_each(|record| aggregate.add(record));
        aggregate
    }

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() <= want.abs() * 1e-3, "{got} should be {want}");
    }

    #[test]
    fn figures_of_known_records() {
        let records = [record(1000), record(1500), record(1930)];
        let summary = Summary::choose(&aggregate(1000, 2000, &records), None);
        let times = summary.latencies_ms;
        close(times.ttft.unwrap().mean, 100.0);
        close(times.tpot.unwrap().p50, 10.0);
        close(times.latency.unwrap().max, 145.0);
        close(times.ttft_from_schedule.unwrap().mean, 102.0);
        assert_eq!(times.inter_token_gap.unwrap().count, 12);
        // The last request counts for times, but its tokens and its end lie beyond the window.
        assert_eq!(summary.requests, Counts { succeeded: 3, failed: 0, interrupted: 0, cut: 0 });
        close(summary.throughput.requests_per_s, 2.0);
        close(summary.throughput.output_tokens_per_s, 10.0);
        close(summary.throughput.mean_in_flight, 0.145 * 2.0 + 0.07);
        let phases = summary.phases_ms.unwrap();
        assert_eq!(phases.largest, "prefill");
        let shares: Vec<(&str, f64)> = phases.rows.iter().map(|row| (row.phase.as_str(), row.share * 145.0)).collect();
        for ((name, share), (expected, ms)) in
            shares.into_iter().zip([("prefill", 100.0), ("decode", 40.0), ("network + client", 5.0)])
        {
            assert_eq!(name, expected);
            close(share, ms);
        }
    }

    #[test]
    fn failures_are_counted_and_in_no_time() {
        let mut failed = record(1100);
        failed.error = Some(Failure::new(ErrorClass::Http(503), "full"));
        let mut cut = record(1200);
        cut.error = Some(Failure::new(ErrorClass::Interrupted, "cut"));
        let mut late = record(1300);
        late.error = Some(Failure::new(ErrorClass::Cut, "late"));
        let summary = Summary::choose(&aggregate(1000, 2000, &[record(1000), failed, cut, late]), None);
        assert_eq!(summary.requests, Counts { succeeded: 1, failed: 1, interrupted: 1, cut: 1 });
        assert_eq!(summary.latencies_ms.latency.unwrap().count, 1);
        close(summary.throughput.output_tokens_per_s, 5.0);
        assert_eq!(summary.errors, [ErrorCount { class: ErrorClass::Http(503), count: 1, example: "full".into() }]);
    }

    #[test]
    fn the_ramp_up_is_left_out_of_a_run_that_is_long_enough() {
        let records = [record(0), record(400), record(1000), record(1200)];
        let chosen = |end_ms| {
            let (whole, steady) = (aggregate(0, end_ms, &records), aggregate(1000, end_ms, &records));
            Summary::choose(&whole, Some(&steady)).window
        };
        let long = chosen(2000);
        assert_eq!((long.ramp_excluded, long.excluded_requests, long.start_us), (true, 2, 1_000_000));
        let short = chosen(1900);
        assert_eq!((short.ramp_excluded, short.excluded_requests, short.start_us), (false, 0, 0));
        let none_after =
            Summary::choose(&aggregate(0, 9000, &records[..2]), Some(&aggregate(1000, 9000, &records[..2])));
        assert!(!none_after.window.ramp_excluded);
    }

    #[test]
    fn one_token_has_no_time_per_token_and_an_empty_answer_no_first_one() {
        let mut one = record(1000);
        one.chunks.truncate(1);
        one.usage = None;
        let mut empty = record(1300);
        empty.chunks.clear();
        let summary = Summary::choose(&aggregate(1000, 2000, &[one, empty]), None);
        assert_eq!(summary.latencies_ms.tpot, None);
        assert_eq!(summary.latencies_ms.ttft.unwrap().count, 1);
        assert_eq!(summary.latencies_ms.latency.unwrap().count, 2);
        assert_eq!(summary.tokens.without_usage, 1);
    }

    #[test]
    fn the_server_check_adds_the_round_trip() {
        let mut round_trip = Histogram::default();
        round_trip.record(Duration::from_millis(2));
        let whole = aggregate(1000, 2000, &[record(1000)]);
        let check = ServerCheck::new(&whole, 0.096, 1.0, &round_trip).unwrap();
        close(check.difference_percent, 2.0 / 98.0 * 100.0);
        assert_eq!(ServerCheck::new(&whole, 0.0, 0.0, &round_trip), None);
    }
}
