//! What a server claims of a request, taken for true only where it can be: counts that what was sent allows, times
//! that lie within those that were seen.

use std::time::Duration;

use serde_json::Value;

use crate::record::{Timings, Usage};

/// What templates and system prompts may add to a prompt, in tokens.
const TEMPLATE_TOKENS: u64 = 16 << 10;

/// Phases kept of a ledger.
const PHASES: usize = 16;

/// Bytes of a phase's name.
const NAME: usize = 40;

/// How much more than was seen here a server may claim, so that clocks need not run alike.
const SLACK: Duration = Duration::from_millis(100);

/// Token counts, or which of them cannot be: a token stands for at least one byte of the prompt, and of the answer
/// there are no more than were asked for.
pub(super) fn usage(value: &Value, prompt: &str, max_tokens: u32) -> Result<Usage, String> {
    let count = |name: &str, most: u64| match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(count) => match count.as_u64() {
            Some(count) if count <= most => Ok(Some(count)),
            _ => Err(format!("usage.{name} is {count}")),
        },
    };
    let missing = |name: &str| format!("usage.{name} is missing");
    let prompt_tokens = count("prompt_tokens", TEMPLATE_TOKENS + prompt.len() as u64)?;
    let prompt_tokens = prompt_tokens.ok_or_else(|| missing("prompt_tokens"))?;
    // One more, where the token that ended it is counted too.
    let completion_tokens = count("completion_tokens", u64::from(max_tokens) + 1)?;
    let completion_tokens = completion_tokens.ok_or_else(|| missing("completion_tokens"))?;
    let cached_tokens = count("cached_tokens", prompt_tokens)?.unwrap_or(0);
    Ok(Usage { prompt_tokens, completion_tokens, cached_tokens })
}

/// The ledger, or which of its times cannot be, as the request took only `latency`.
pub(super) fn timings(value: &Value, latency: Duration) -> Result<Timings, String> {
    let most = (latency + latency / 10 + SLACK).as_secs_f64() * 1e3;
    let time = |name: &str, value: Option<&Value>| match value {
        None | Some(Value::Null) => Ok(None),
        Some(time) => match time.as_f64() {
            Some(millis) if (0.0..=most).contains(&millis) => Ok(Some(millis)),
            _ => Err(format!("timings.{name} is {time}")),
        },
    };
    let field = |name: &str| time(name, value.get(name));
    let mut timings = Timings {
        total_ms: field("total_ms")?.ok_or("timings.total_ms is missing")?,
        ttft_ms: field("ttft_ms")?,
        tpot_ms: field("tpot_ms")?,
        stall_ms: field("stall_ms")?,
        preempted_ms: field("preempted_ms")?,
        interference_ms: field("interference_ms")?,
        ..Timings::default()
    };
    let phases = value.get("phases").and_then(Value::as_object);
    let named = |name: &str| name.len() <= NAME && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    for (name, value) in phases.into_iter().flatten().filter(|(name, _)| named(name)).take(PHASES) {
        timings.phases.extend(time(&format!("phases.{name}"), Some(value))?.map(|millis| (name.clone(), millis)));
    }
    Ok(timings)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_those_that_can_be() {
        let good = json!({"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18, "cached_tokens": null});
        let expected = Usage { prompt_tokens: 10, completion_tokens: 8, cached_tokens: 0 };
        assert_eq!(usage(&good, "hi", 8), Ok(expected));
        for (name, wrong) in [
            ("prompt_tokens", json!(9_223_372_036_854_775_808_u64)),
            ("prompt_tokens", json!(1_000_000)),
            ("completion_tokens", json!(-1)),
            ("completion_tokens", json!(1e30)),
            ("completion_tokens", json!(10)),
            ("completion_tokens", json!("8")),
            ("cached_tokens", json!(11)),
            ("prompt_tokens", Value::Null),
        ] {
            let mut usage_of = good.clone();
            usage_of[name] = wrong;
            let refused = usage(&usage_of, "hi", 8).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn times_lie_within_those_that_were_seen() {
        let good = json!({"total_ms": 50.0, "ttft_ms": 20, "phases": {"prefill_ms": 20.0, "a\u{1b}[31m": 1.0}});
        let latency = Duration::from_millis(55);
        assert_eq!(
            timings(&good, latency).unwrap().phases.into_iter().collect::<Vec<_>>(),
            [("prefill_ms".into(), 20.0)]
        );
        for (name, wrong) in [("total_ms", json!(1e12)), ("ttft_ms", json!(-1.0)), ("tpot_ms", json!("NaN"))] {
            let mut of = good.clone();
            of[name] = wrong;
            assert!(timings(&of, latency).unwrap_err().contains(name));
        }
        let wrong = json!({"total_ms": 5.0, "phases": {"queue_ms": -3}});
        assert_eq!(timings(&wrong, latency).unwrap_err(), "timings.phases.queue_ms is -3");
    }
}
