//! Small requests beside the load: readiness, and the round trip without any work.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use reqwest::StatusCode;

use super::failure::causes;
use super::{PROBE_TIMEOUT, Target};

/// The most of a probe's answer that is read.
const SIZE_LIMIT: usize = 64 << 10;

/// Fails with a sentence when the server cannot be reached or says that it is not ready.
///
/// A server without `/health/ready` passes: it answered.
pub async fn check_ready(target: &Target) -> anyhow::Result<()> {
    let response = match target.client.get(target.url("/health/ready")).timeout(PROBE_TIMEOUT).send().await {
        Ok(response) => response,
        Err(error) => bail!("cannot reach {}: {}", target.shown(), causes(&error.without_url())),
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        bail!("{} is up but not ready (503 from /health/ready): it is loading, or draining", target.shown());
    }
    Ok(())
}

/// The time of `GET /health/live`, whatever its status: client, network and HTTP, but no inference.
pub async fn round_trip(target: &Target) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let failed = |error: reqwest::Error| anyhow!("GET /health/live: {}", causes(&error.without_url()));
    let request = target.client.get(target.url("/health/live")).timeout(PROBE_TIMEOUT);
    let mut response = request.send().await.map_err(failed)?;
    let mut length = 0;
    while let Some(bytes) = response.chunk().await.map_err(failed)? {
        length += bytes.len();
        ensure!(length <= SIZE_LIMIT, "the answer to GET /health/live is larger than {SIZE_LIMIT} bytes");
    }
    Ok(start.elapsed())
}
