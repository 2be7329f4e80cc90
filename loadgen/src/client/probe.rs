//! Small requests beside the load: readiness, the round trip without any work, the server's own histogram.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::StatusCode;

use super::Target;
use super::stream::causes;

/// The most of `/metrics` that is read.
const METRICS_LIMIT: usize = 16 << 20;

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Fails with a sentence when the server cannot be reached or says that it is not ready.
///
/// A server without `/health/ready` passes: it answered.
pub async fn check_ready(target: &Target) -> anyhow::Result<()> {
    let response = match target.client.get(target.url("/health/ready")).timeout(PROBE_TIMEOUT).send().await {
        Ok(response) => response,
        Err(error) => bail!("cannot reach {}: {}", target.base(), causes(&error.without_url())),
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        bail!("{} is up but not ready (503 from /health/ready): it is loading, or draining", target.base());
    }
    Ok(())
}

/// The time of `GET /health/live`, whatever its status: client, network and HTTP, but no inference.
pub async fn round_trip(target: &Target) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let response = target.client.get(target.url("/health/live")).timeout(PROBE_TIMEOUT).send().await?;
    response.bytes().await?;
    Ok(start.elapsed())
}

/// The server's time-to-first-token histogram, over all of its labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerTtft {
    /// Sum of all observations, in seconds.
    pub sum_s: f64,
    /// Number of observations.
    pub count: f64,
}

/// Reads [`ServerTtft`] from `/metrics`; `None` when the server has no such page.
pub async fn server_ttft(target: &Target) -> anyhow::Result<Option<ServerTtft>> {
    let mut response = target.client.get(target.url("/metrics")).timeout(PROBE_TIMEOUT).send().await?;
    if response.status() != StatusCode::OK {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.context("while reading /metrics")? {
        if body.len() + bytes.len() > METRICS_LIMIT {
            bail!("/metrics is larger than {METRICS_LIMIT} bytes");
        }
        body.extend_from_slice(&bytes);
    }
    Ok(Some(parse_ttft(&String::from_utf8_lossy(&body))))
}

/// Absent series count as 0: a server that has served nothing yet may not show them.
fn parse_ttft(text: &str) -> ServerTtft {
    let total = |name: &str| -> f64 {
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter_map(|rest| match rest.strip_prefix('{') {
                // Label values may hold spaces and braces; the value stands after the last brace.
                Some(labelled) => labelled.rsplit_once('}').map(|(_, value)| value),
                None => rest.starts_with(' ').then_some(rest),
            })
            .filter_map(|value| value.split_whitespace().next()?.parse::<f64>().ok())
            .filter(|value| value.is_finite())
            .sum()
    };
    ServerTtft {
        sum_s: total("gen_ai_server_time_to_first_token_seconds_sum"),
        count: total("gen_ai_server_time_to_first_token_seconds_count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_over_their_labels() {
        let text = "# TYPE gen_ai_server_time_to_first_token_seconds histogram\n\
                    gen_ai_server_time_to_first_token_seconds_bucket{le=\"0.1\"} 7\n\
                    gen_ai_server_time_to_first_token_seconds_sum{model=\"a}b c\"} 1.5\n\
                    gen_ai_server_time_to_first_token_seconds_sum{model=\"d\"} 0.5 1700000000\n\
                    gen_ai_server_time_to_first_token_seconds_count{model=\"a}b c\"} 3\n\
                    gen_ai_server_time_to_first_token_seconds_count 1\n\
                    gen_ai_server_time_to_first_token_seconds_counter 9\n";
        assert_eq!(parse_ttft(text), ServerTtft { sum_s: 2.0, count: 4.0 });
        assert_eq!(parse_ttft("up 1\n"), ServerTtft { sum_s: 0.0, count: 0.0 });
    }
}
