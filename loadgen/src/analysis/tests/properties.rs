//! What holds for all requests, however odd.

use std::collections::HashMap;

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::analysis::bottleneck::claims;
use crate::analysis::figures::{Analysed, Figures};
use crate::analysis::rules::{Case, Part, RULES};
use crate::analysis::segments::{Segment, Split, total, unify_ways};

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_000_000_u64, 0..5_000_000_000_u64]
}

prop_compose! {
    fn client()(
        steps in [time(), time(), time(), time()],
        text in any::<bool>(),
        wall in any::<bool>(),
        at in time(),
        failed in option::weighted(0.1, Just("reset".to_owned())),
        ramp in any::<bool>(),
    ) -> ClientSide {
        let sent = at + steps[0];
        let first = sent + steps[1];
        let last = first + steps[2];
        let clock = if wall { Clock::Wall } else { Clock::Run(0) };
        let (first, last) = (text.then_some(first), text.then_some(last));
        ClientSide { clock, scheduled: at, sent, first, last, end: sent + steps[1] + steps[2] + steps[3], ramp, failure: failed }
    }
}

prop_compose! {
    fn server()(
        phases in [time(), time(), time(), time(), time(), time()],
        reached in 0..=6_usize,
        sums in [time(), time(), time()],
        unexplained in prop_oneof![Just(0), time()],
        lost in any::<bool>(),
        start in option::of(time()),
    ) -> ServerSide {
        let phases: [Option<u64>; 6] = std::array::from_fn(|index| (index < reached).then_some(phases[index]));
        let explained: u64 = phases.iter().flatten().sum();
        let total = if lost { explained / 2 } else { explained + unexplained };
        let [stalled, preempted, interference] = sums;
        ServerSide { start, total, phases, attributed: Attributed { stalled, preempted, interference }, failure: None }
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    let tokens = (option::of(0..5000_u64), option::of(0..5000_u64), option::of(0..5000_u64))
        .prop_map(|(prompt, cached, output)| Tokens { prompt, cached, output });
    (option::weighted(0.8, client()), option::weighted(0.8, server()), tokens)
        .prop_map(|(client, server, tokens)| Observation { client, server, tokens })
}

fn share() -> impl Strategy<Value = Option<f64>> {
    option::of(0.0..1.0_f64)
}

prop_compose! {
    fn any_facts()(
        shares in [share(), share(), share(), share(), share(), share()],
        counts in [share(), share(), share(), share(), share()],
    ) -> ServerFacts {
        let count = |index: usize| counts[index].map(|count| (count * 100.0).round());
        ServerFacts {
            memory_bandwidth_utilization: shares[0],
            compute_utilization: shares[1],
            kv_usage_max: shares[2],
            plan_share: shares[3],
            sample_share: shares[4],
            prefix_cache_hit_rate: shares[5],
            batch_limit: count(0),
            running_mean: count(1),
            batch_mean: count(2),
            prefill_tokens_per_s: count(3),
            decode_tokens_per_s: count(4),
            ..ServerFacts::default()
        }
    }
}

proptest! {
    #[test]
    fn segments_sum_to_what_the_user_waited(observation in observation()) {
        let split = Split::of(&observation);
        prop_assert_eq!(split.is_some(), observation.client.is_some() || observation.server.is_some());
        let Some(mut split) = split else { return Ok(()) };
        let whole = match (&observation.client, &observation.server) {
            (Some(client), _) => client.end - client.scheduled,
            (None, Some(server)) => server.total,
            (None, None) => unreachable!(),
        };
        prop_assert_eq!(split.total(), whole);
        prop_assert_eq!(total(&split.whole()), whole);
        if let Some(client) = &observation.client {
            let first = client.first.map_or(0, |first| first - client.scheduled);
            prop_assert_eq!(total(&split.first), first, "up to the first text");
        }
        unify_ways([&mut split].into_iter());
        prop_assert_eq!(split.total(), whole, "also with both ways as one");
    }

    #[test]
    fn server_phases_are_never_more_than_the_ledger_says(observation in observation()) {
        let (Some(split), Some(server)) = (Split::of(&observation), &observation.server) else { return Ok(()) };
        let whole = split.whole();
        for (segment, limit) in [
            (Segment::Receive, server.phases[0]),
            (Segment::Tokenize, server.phases[1]),
            (Segment::Queue, server.phases[2]),
            (Segment::Prefill, server.phases[3]),
            (Segment::Decode, server.phases[4]),
            (Segment::Deliver, server.phases[5]),
            (Segment::Interference, Some(server.attributed.interference)),
        ] {
            prop_assert!(whole[segment as usize] <= limit.unwrap_or(0), "{}", segment.name());
        }
    }

    #[test]
    fn every_moment_is_claimed_by_one_rule(
        observations in prop::collection::vec(observation(), 1..20),
        facts in any_facts(),
    ) {
        let analysed: Vec<Analysed<'_>> = observations
            .iter()
            .filter_map(|observation| Some(Analysed { observation, split: Split::of(observation)? }))
            .collect();
        let Some(figures) = Figures::of(&analysed, 1_000_000_000, 1.0) else { return Ok(()) };
        let case = Case { figures: Some(&figures), facts: &facts, failures: &[] };
        let mut claimed: HashMap<Part, usize> = HashMap::new();
        for claim in RULES.iter().filter_map(|rule| (rule.claim)(&case)) {
            claim.waiting.into_iter().chain(claim.work).for_each(|part| *claimed.entry(part).or_default() += 1);
        }
        for part in Segment::ALL.into_iter().flat_map(|segment| [Part::First(segment), Part::Rest(segment)]) {
            prop_assert_eq!(claimed.get(&part), Some(&1), "{:?}", part);
        }
        let cost: f64 = claims(&case, &figures).iter().map(|finding| finding.cost_ms).sum();
        prop_assert!((cost - figures.latency_ms.mean).abs() <= 1e-6 * figures.latency_ms.mean.max(1.0));
    }

    #[test]
    fn any_requests_have_an_analysis_whose_shares_sum_to_one(
        observations in prop::collection::vec(observation(), 0..80),
        facts in option::of(any_facts()),
        drawn_from in 0..1000_u64,
    ) {
        let analysis = analyse(&Evidence { observations, facts, drawn_from, ..Evidence::default() });
        for band in analysis.latency.iter().chain(&analysis.ttft).flat_map(|profile| &profile.bands) {
            let shares: f64 = band.segments.iter().map(|time| time.share).sum();
            prop_assert!(band.mean_ms == 0.0 || (shares - 1.0).abs() < 1e-9, "{:?}", band);
        }
        prop_assert!(serde_json::to_string(&analysis).is_ok());
        let mut out = Vec::new();
        prop_assert!(crate::report::write_analysis(&analysis, &[], &mut out).is_ok());
    }
}
