//! What the server says of itself, in two lines.

use std::io::{self, Write};

use super::terminal::number;
use crate::server::ServerFacts;

/// Writes what is known; what is not is left out.
pub(super) fn server_facts(facts: &ServerFacts, out: &mut impl Write) -> io::Result<()> {
    let lines = [steps(facts), limits(facts)].map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
    let mut title = "Server";
    writeln!(out)?;
    for line in lines.iter().filter(|line| !line.is_empty()) {
        writeln!(out, "{title:<12}{line}")?;
        title = "";
    }
    Ok(())
}

/// What it computed, and for how many.
fn steps(facts: &ServerFacts) -> [Option<String>; 5] {
    [
        facts.batch_mean.map(|mean| match facts.batch_limit {
            Some(limit) => format!("batch {} of at most {limit}", number(mean)),
            None => format!("batch {}", number(mean)),
        }),
        facts.step_mean_ms.map(|mean| format!("{} ms per step", number(mean))),
        facts.prefill_tokens_per_s.map(|rate| format!("{rate:.0} prompt tokens/s computed")),
        facts.running_mean.map(|mean| format!("{} requests running", number(mean))),
        facts.waiting_mean.map(|mean| format!("{} waiting", number(mean))),
    ]
}

/// How near it is to what the machine can.
fn limits(facts: &ServerFacts) -> [Option<String>; 5] {
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    [
        facts.memory_bandwidth_utilization.map(|share| format!("memory bandwidth {}", percent(share))),
        facts.compute_utilization.map(|share| format!("compute {}", percent(share))),
        facts.kv_usage_mean.map(|mean| match facts.kv_usage_max {
            Some(max) => format!("KV cache {} full ({} at most)", percent(mean), percent(max)),
            None => format!("KV cache {} full", percent(mean)),
        }),
        facts.prefix_cache_hit_rate.map(|rate| format!("{} of prompt tokens from the prefix cache", percent(rate))),
        facts.preemptions.filter(|count| *count > 0.0).map(|count| format!("{count} preemptions")),
    ]
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn text(facts: &ServerFacts) -> String {
        let mut out = Vec::new();
        server_facts(facts, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn two_lines_say_what_is_known() {
        let facts = ServerFacts {
            batch_mean: Some(3.21),
            batch_limit: Some(64.0),
            waiting_mean: Some(0.5),
            memory_bandwidth_utilization: Some(0.714),
            kv_usage_mean: Some(0.1),
            kv_usage_max: Some(0.3),
            preemptions: Some(0.0),
            ..ServerFacts::default()
        };
        let expected = "\nServer      batch 3.21 of at most 64, 0.50 waiting\n            \
                        memory bandwidth 71%, KV cache 10% full (30% at most)\n";
        assert_eq!(text(&facts), expected);
        let only = ServerFacts { preemptions: Some(2.0), ..ServerFacts::default() };
        assert_eq!(text(&only), "\nServer      2 preemptions\n");
    }
}
