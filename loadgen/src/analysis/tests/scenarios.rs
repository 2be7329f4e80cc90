//! Each bottleneck by requests that suffer from it alone, and what its words must cite.

use super::*;
use crate::analysis::failures::FailureCount;

#[track_caller]
fn check(made: Made, facts: ServerFacts, id: &str, cited: &[&str]) {
    let analysis = of(made, facts);
    assert_eq!(named(&analysis), id, "{:#?}", analysis.bottleneck);
    let words = words(&analysis);
    for figure in cited {
        assert!(words.contains(figure), "{figure:?} is not in: {words}");
    }
}

#[test]
fn where_nothing_is_wrong_nothing_is_named_but_the_next_limit() {
    let analysis = of(good(), facts());
    assert_eq!(named(&analysis), "healthy");
    assert!(words(&analysis).contains("TTFT): p95 is 50.0 ms (good below 500 ms)"), "{}", words(&analysis));
    assert_eq!(analysis.runner_up.unwrap().id, "decode_overhead");
}

#[test]
fn a_queue_before_a_full_batch_wants_places() {
    let made = Made { phases: [1, 1, 900, 44, 200, 1], ..good() };
    let full = ServerFacts { batch_limit: Some(2.0), batch_mean: Some(1.9), waiting_max: Some(9.0), ..facts() };
    // One each 100 ms: 10/s × 244 ms = 2.44 places; × 1144 ms = 11.4 places.
    let cited = [
        "900.0 ms in the server's queue",
        "10.0 requests/s × 244.0 ms",
        "2.44 places",
        "11.4 are wanted",
        "from 2 to 12",
        "6 replicas",
        "30%",
    ];
    check(made, full, "queue", &cited);
    let unknown = ServerFacts::default();
    check(made, unknown, "queue", &["Provide 12 places"]);
    let hot = ServerFacts { memory_bandwidth_utilization: Some(0.9), ..full };
    check(made, hot, "queue", &["makes each step longer: memory bandwidth is at 90%"]);
}

#[test]
fn a_queue_before_a_full_cache_wants_memory() {
    let made = Made { phases: [1, 1, 900, 44, 200, 1], ..good() };
    let full = ServerFacts { kv_usage_max: Some(0.99), kv_usage_mean: Some(0.9), running_mean: Some(2.0), ..facts() };
    check(made, full, "kv", &["99% full at most, 90% on average", "of 64 that", "--kv-memory", "--kv-type q8"]);
    let evicted = Made { phases: [1, 1, 2, 44, 900, 1], preempted: 600, ..good() };
    let evicting = ServerFacts { preemptions: Some(30.0), ..facts() };
    check(evicted, evicting, "kv", &["lose 600.0 ms to eviction", "30 evictions"]);
}

#[test]
fn long_prompts_are_prefill_bound() {
    let made = Made { phases: [1, 1, 2, 1600, 40, 1], prompt: 4000, cached: 0, output: 5, ..good() };
    let cited = [
        "1600 ms to compute",
        "4000 tokens",
        "0% of them from the prefix cache",
        "2500 prompt tokens per second",
        "up to 1250 tokens",
        "from 512: a prompt takes 8 steps",
    ];
    check(made, facts(), "prefill", &cited);
}

#[test]
fn a_queue_behind_prompts_belongs_to_them() {
    let made = Made { phases: [1, 1, 2000, 400, 40, 1], prompt: 4000, cached: 0, output: 5, ..good() };
    let prompts = ServerFacts { prefill_tokens_per_s: Some(9000.0), decode_tokens_per_s: Some(20.0), ..facts() };
    check(made, prompts, "prefill", &["waits 2000 ms while other prompts are computed"]);
}

#[test]
fn prompts_of_others_hold_answers_up() {
    let made = Made { phases: [1, 1, 2, 44, 900, 1], interference: 700, ..good() };
    check(
        made,
        facts(),
        "interference",
        &["700.0 ms go to other requests' prompts", "200.0 ms to the answer", "from 512 to 256"],
    );
}

#[test]
fn slow_decoding_is_told_apart_by_what_limits_it() {
    let made = Made { phases: [1, 1, 2, 44, 3000, 1], ..good() };
    let with = |memory: f64, compute: f64| ServerFacts {
        memory_bandwidth_utilization: Some(memory),
        compute_utilization: Some(compute),
        ..facts()
    };
    check(
        made,
        with(0.8, 0.1),
        "decode_bandwidth",
        &["150.0 ms per token", "80% of the machine's memory bandwidth", "4.00 of 64"],
    );
    check(made, with(0.3, 0.9), "decode_compute", &["90% of its arithmetic", "--threads"]);
    check(made, with(0.2, 0.1), "decode_overhead", &["Planning takes 1% of a step, sampling 3%", "4.00 of 64"]);
    check(
        made,
        ServerFacts { sample_share: Some(0.4), ..with(0.2, 0.1) },
        "decode_overhead",
        &["sampling 40%", "logprobs"],
    );
    check(made, ServerFacts::default(), "decode", &["3000 ms on average (21.0 tokens, 150.0 ms per token)"]);
}

#[test]
fn a_slow_reader_shows_as_stall_delivery_or_a_slow_line() {
    let stalled = Made { phases: [1, 1, 2, 44, 900, 1], stalled: 700, ..good() };
    check(stalled, facts(), "client", &["pauses 700.0 ms"]);
    let delivered = Made { phases: [1, 1, 2, 44, 200, 500], ..good() };
    check(delivered, facts(), "client", &["needs 500.0 ms to hand over"]);
    let line = Made { late: 800, ..good() };
    check(line, facts(), "client", &["800.0 ms longer than the server needs", "costs only 2.00 ms"]);
}

#[test]
fn a_long_way_is_the_network() {
    let made = Made { network: [200, 200], ..good() };
    check(made, facts(), "network", &["400.0 ms are not the server's"]);
}

#[test]
fn the_client_and_the_intake_are_named() {
    check(Made { due_to_sent: 300, ..good() }, facts(), "client_queue", &["300.0 ms after they were due"]);
    check(
        Made { phases: [300, 1, 2, 44, 200, 1], ..good() },
        facts(),
        "receive",
        &["Reading a request takes 300.0 ms"],
    );
    check(
        Made { phases: [1, 300, 2, 44, 200, 1], ..good() },
        facts(),
        "tokenize",
        &["its prompt (100.0 tokens) 300.0 ms"],
    );
}

fn failing(class: &str, count: u64) -> Evidence {
    let mut evidence = good().evidence(60, 100, facts());
    evidence.observations.extend((0..count).map(|index| {
        let mut failed = good().sent_at(index);
        failed.client.as_mut().unwrap().failure = Some(class.into());
        failed.server.as_mut().unwrap().phases = [Some(MS), Some(MS), Some(MS), None, None, None];
        failed
    }));
    evidence
}

#[test]
fn refusals_and_errors_come_before_all_waiting() {
    let analysis = analyse(&failing("http_503", 30));
    assert_eq!(named(&analysis), "overload");
    let words = words(&analysis);
    for figure in ["30 of 90 requests (33%)", "30 http_503 (ended in queue)", "67% of the load", "1.50 times"] {
        assert!(words.contains(figure), "{figure:?} is not in: {words}");
    }
    let expected = FailureCount { class: "http_503".into(), ended_in: "queue".into(), count: 30 };
    assert_eq!(analysis.failures, [expected]);
    assert_eq!(analysis.figures.unwrap().requests, 60);
    assert_eq!(named(&analyse(&failing("reset", 5))), "errors");
    // A single failure among a hundred is no bottleneck.
    let mut evidence = failing("reset", 1);
    evidence.observations.extend((0..60).map(|index| good().sent_at(index * 100)));
    assert_eq!(named(&analyse(&evidence)), "healthy");
    let mut refused = failing("http_503", 5);
    refused.observations.drain(..60);
    let analysis = analyse(&refused);
    assert_eq!((named(&analysis), analysis.figures), ("overload", None));
}

#[test]
fn the_worse_of_two_is_named_and_the_other_comes_next() {
    // 1,400 ms of waiting, and 1,000 ms of 20 × 50 ms beyond good in decoding.
    let made = Made { phases: [1, 1, 1400, 44, 2000, 1], ..good() };
    let full = ServerFacts { batch_limit: Some(4.0), ..facts() };
    let analysis = of(made, full);
    let (first, next) = (analysis.bottleneck.unwrap(), analysis.runner_up.unwrap());
    assert_eq!((first.id, next.id), ("queue", "decode_overhead"));
    assert!(first.weight_ms > next.weight_ms && next.cost_ms > first.cost_ms, "{first:?} {next:?}");
    assert_eq!(first.weight_ms, Some(1400.0));
    // All but deliver and the network's way back, in proportion to what was beyond 20 × 50 ms.
    assert!((next.weight_ms.unwrap() - 2000.0 * 1001.0 / 2001.0).abs() < 1e-6, "{next:?}");
}

#[test]
fn one_side_alone_is_analysed_as_far_as_it_goes() {
    let sides = |keep: fn(&mut Observation)| {
        let mut evidence = good().evidence(60, 100, facts());
        evidence.observations.iter_mut().for_each(keep);
        analyse(&evidence)
    };
    let server = sides(|observation| {
        let start = observation.client.take().unwrap().sent;
        observation.server.as_mut().unwrap().start = Some(start);
    });
    assert_eq!(named(&server), "healthy");
    assert_eq!(server.figures.as_ref().unwrap().latency_ms.mean, 249.0);
    assert!(server.notes[0].starts_with("The server's side only"), "{:?}", server.notes);
    let client = sides(|observation| observation.server = None);
    assert_eq!(client.figures.as_ref().unwrap().segments[0].segment.name(), "unexplained");
    assert!(client.notes[0].starts_with("The client's side only"), "{:?}", client.notes);
}

#[test]
fn doubts_are_said() {
    let mut evidence = good().evidence(5, 100, facts());
    evidence.drawn_from = 50;
    evidence.facts = None;
    let analysis = analyse(&evidence);
    let notes = analysis.notes.join(" ");
    for part in ["Few requests: 5 analysed", "5 of 50 requests (10%)", "The server's inside"] {
        assert!(notes.contains(part), "{part:?} is not in {notes}");
    }
    let figures = analysis.figures.unwrap();
    assert!((figures.requests_per_s - 50.0 / figures.busy_s).abs() < 1e-9, "rates are of all requests");
    assert_eq!(analyse(&Evidence::default()).bottleneck, None);
}

#[test]
fn ramp_up_counts_for_growth_only() {
    let mut evidence = good().evidence(60, 100, facts());
    for observation in &mut evidence.observations[..20] {
        observation.client.as_mut().unwrap().ramp = true;
    }
    let analysis = analyse(&evidence);
    assert_eq!((analysis.requests.analysed, analysis.requests.in_ramp), (40, 20));
    assert!(analysis.growth.too_little.is_some() || analysis.growth.bands.iter().any(|band| band.band.requests > 0));
    let figures = analysis.figures.unwrap();
    assert!((figures.busy_s - 40.0 * 100.0 / 1e3).abs() < 1e-9, "{}", figures.busy_s);
}
