//! One analysis as it is printed, word for word.

use super::*;
use crate::analysis::sources::Source;
use crate::report::write_analysis;

#[test]
fn the_answer_comes_first_and_what_it_rests_on_after_it() {
    let mut observations: Vec<Observation> = (0..200)
        .map(|index| {
            // Load rises and falls; with it the queue. Every twentieth request is a long prompt.
            let load = 1 + (index * 7) % 40;
            let long = index % 20 == 19;
            let made = Made {
                phases: [1, if long { 12 } else { 2 }, 30 * load, if long { 900 } else { 60 }, 400, 2],
                interference: 40,
                network: [1, 2],
                prompt: if long { 3000 } else { 200 },
                cached: 50,
                output: 33,
                ..Made::default()
            };
            made.sent_at(index * 60)
        })
        .collect();
    for failed in &mut observations[50..51] {
        failed.client.as_mut().unwrap().failure = Some("http_503".into());
    }
    let full = ServerFacts {
        batch_limit: Some(8.0),
        batch_mean: Some(7.9),
        running_mean: Some(7.8),
        waiting_mean: Some(9.6),
        waiting_max: Some(21.0),
        ..facts()
    };
    let evidence = Evidence { observations, facts: Some(full), drawn_from: 400, ..Evidence::default() };
    let sources = [Source { input: "report.json".into(), kind: "report", content: "200 requests".into() }];
    let mut out = Vec::new();
    write_analysis(&analyse(&evidence), &sources, &mut out).unwrap();
    let printed = String::from_utf8(out).unwrap();
    println!("{printed}");
    assert_eq!(printed, include_str!("printed.txt"));
}
