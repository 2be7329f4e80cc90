//! A limit on requests per minute: a bucket of tokens per API key, or one for all callers where there are no keys.
//!
//! There are as many buckets as keys: nothing that a client sends makes another. A bucket is one point in time,
//! when it will be full again, so none has to be refilled (the generic cell rate algorithm of ITU-T I.371).

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use super::auth::Caller;
use crate::{config::LimitsConfig, error::ApiError, state::App};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets through whom the limit admits, and tells the others when to come back.
pub async fn limit_rate(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(limit) = app.rate_limit() {
        limit.admit(caller).map_err(ApiError::rate_limited)?;
    }
    Ok(next.run(request).await)
}

/// The rate that holds for every caller, and where each of them stands.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    /// By caller: when the bucket is full again.
    full_at: Mutex<Box<[Instant]>>,
}

impl RateLimit {
    /// Full buckets for `keys` API keys, if a limit is configured.
    pub fn new(limits: &LimitsConfig, keys: usize) -> Option<Self> {
        let rate = Rate::new(limits.requests_per_minute?, limits.burst()?);
        Some(Self { rate, full_at: Mutex::new(vec![Instant::now(); keys.max(1)].into()) })
    }

    /// Takes a token from the caller's bucket, or says how long until there is one.
    fn admit(&self, caller: Caller) -> Result<(), Duration> {
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = &mut buckets[caller.0];
        *full_at = self.rate.take(*full_at, Instant::now())?;
        Ok(())
    }
}

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Time for one token.
    interval: Duration,
    /// Time for all tokens but one: the emptiest a bucket with a token can be.
    slack: Duration,
}

impl Rate {
    fn new(requests_per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        // Rounded up: a nanosecond too slow keeps the limit, one too fast would not.
        let nanos = (MINUTE.as_nanos() as u64).div_ceil(requests_per_minute.get().into());
        let interval = Duration::from_nanos(nanos);
        Self { interval, slack: interval * (burst.get() - 1) }
    }

    /// When a bucket is full again if one token more is taken, or how long until there is one.
    fn take(self, full_at: Instant, now: Instant) -> Result<Instant, Duration> {
        let full_at = full_at.max(now);
        match (full_at - now).saturating_sub(self.slack) {
            Duration::ZERO => Ok(full_at + self.interval),
            wait => Err(wait),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(requests_per_minute: u32, burst: u32) -> Rate {
        Rate::new(requests_per_minute.try_into().unwrap(), burst.try_into().unwrap())
    }

    #[test]
    fn tokens_go_in_a_burst_and_come_back_one_by_one() {
        // One token each two seconds, three at most: when a request comes, and how long it must wait.
        let steps = [
            (0, None),
            (0, None),
            (0, None),
            (0, Some(2000)),
            (1999, Some(1)),
            (2000, None),
            (2000, Some(2000)),
            (6500, None),
            (6500, None),
            (6500, Some(1500)),
            (100_000, None),
            (100_000, None),
            (100_000, None),
            (100_000, Some(2000)),
        ];
        let (rate, start) = (rate(30, 3), Instant::now());
        let mut full_at = start;
        for (millis, wait) in steps {
            let taken = rate.take(full_at, start + Duration::from_millis(millis));
            assert_eq!(taken.err(), wait.map(Duration::from_millis), "at {millis} ms");
            full_at = taken.unwrap_or(full_at);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let now = Instant::now();
        for rate in [rate(1, u32::MAX), rate(u32::MAX, u32::MAX), rate(u32::MAX, 1)] {
            assert!(rate.take(now, now).is_ok_and(|full_at| full_at > now));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_have_buckets_of_their_own() {
        let limits = |requests_per_minute: u32| LimitsConfig {
            requests_per_minute: NonZeroU32::new(requests_per_minute),
            ..LimitsConfig::default()
        };
        assert!(RateLimit::new(&limits(0), 2).is_none());
        let limit = RateLimit::new(&limits(1), 2).unwrap();
        assert_eq!(limit.admit(Caller(0)), Ok(()));
        assert_eq!(limit.admit(Caller(0)), Err(MINUTE));
        assert_eq!(limit.admit(Caller(1)), Ok(()));
        tokio::time::advance(MINUTE).await;
        assert_eq!(limit.admit(Caller(0)), Ok(()));
        assert_eq!(RateLimit::new(&limits(1), 0).unwrap().admit(Caller(0)), Ok(()));
    }

    proptest! {
        /// Gaps between requests are in thousandths of the time for one token.
        #[test]
        fn no_window_admits_more_than_its_share(
            per_minute in 1_u32..100_000,
            burst in 1_u32..20,
            gaps in proptest::collection::vec(0_u32..2500, 1..80),
        ) {
            let (rate, mut now) = (rate(per_minute, burst), Instant::now());
            let (mut full_at, mut admitted) = (now, Vec::new());
            for gap in gaps {
                now += rate.interval * gap / 1000;
                match rate.take(full_at, now) {
                    Ok(later) => {
                        full_at = later;
                        admitted.push(now);
                    }
                    Err(wait) => {
                        prop_assert!(rate.take(full_at, now + wait).is_ok());
                        prop_assert!(rate.take(full_at, now + wait - Duration::from_nanos(1)).is_err());
                    }
                }
            }
            for (first, &start) in admitted.iter().enumerate() {
                for (last, &end) in admitted.iter().enumerate().skip(first) {
                    let refilled = (end - start).as_nanos() * u128::from(per_minute) / MINUTE.as_nanos();
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + refilled);
                }
            }
        }
    }
}
