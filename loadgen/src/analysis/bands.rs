//! Means by segment over bands of requests: what makes the slowest slow is not what makes the median.

use serde::Serialize;

use super::observation::millis;
use super::segments::{Parts, SEGMENTS, Segment, total};

/// A segment's mean over some requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SegmentTime {
    /// Which.
    pub segment: Segment,
    /// Its mean, in milliseconds.
    pub ms: f64,
    /// Its part of the whole, 0 to 1.
    pub share: f64,
}

/// Some requests, and where their time went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Band {
    /// What they have in common.
    pub name: String,
    /// How many they are.
    pub requests: usize,
    /// Their mean time, in milliseconds.
    pub mean_ms: f64,
    /// Its segments; those that are nowhere in the table are left out.
    pub segments: Vec<SegmentTime>,
}

impl Band {
    /// The means over `requests`, of the segments in `shown`.
    pub(super) fn of(name: impl Into<String>, requests: &[Parts], shown: &[Segment]) -> Self {
        let count = requests.len().max(1) as f64;
        let mut sums = [0_u128; SEGMENTS];
        for parts in requests {
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += u128::from(*part));
        }
        let whole = sums.iter().sum::<u128>().max(1) as f64;
        let time = |segment: Segment| {
            let sum = sums[segment as usize] as f64;
            SegmentTime { segment, ms: sum / 1e6 / count, share: sum / whole }
        };
        Self {
            name: name.into(),
            requests: requests.len(),
            mean_ms: sums.iter().sum::<u128>() as f64 / 1e6 / count,
            segments: shown.iter().map(|segment| time(*segment)).collect(),
        }
    }
}

/// The segments that took any time in any of `requests`.
pub(super) fn shown<'a>(requests: impl Iterator<Item = &'a Parts>) -> Vec<Segment> {
    let mut seen = [false; SEGMENTS];
    for parts in requests {
        seen.iter_mut().zip(parts).for_each(|(seen, part)| *seen |= *part > 0);
    }
    Segment::ALL.into_iter().filter(|segment| seen[*segment as usize]).collect()
}

/// A time that users see, by segment and by how long it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// All requests, then bands from the quickest to the slowest; empty ones are left out.
    pub bands: Vec<Band>,
    /// What sets the slowest apart; absent where there are too few requests to tell.
    pub tail: Option<Tail>,
}

/// What the slowest wait for longer than the quicker half does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tail {
    /// By how much the slowest 5% are slower than the quicker half, in milliseconds.
    pub slower_by_ms: f64,
    /// The segment that contributes most to it.
    pub segment: Segment,
    /// What it contributes, in milliseconds.
    pub segment_ms: f64,
}

const QUICKER_HALF: &str = "p0–50";
const SLOWEST: &str = "slowest 5%";

impl Profile {
    /// The profile of `requests`; none without any.
    pub(super) fn of(mut requests: Vec<Parts>) -> Option<Self> {
        if requests.is_empty() {
            return None;
        }
        requests.sort_by_key(total);
        let shown = shown(requests.iter());
        let count = requests.len();
        let slowest = count - (count / 20).max(1);
        let at = |percent: usize| (count * percent).div_ceil(100).min(slowest);
        let ranges = [
            (QUICKER_HALF, 0..at(50)),
            ("p50–90", at(50)..at(90)),
            ("p90–95", at(90)..slowest),
            (SLOWEST, slowest..count),
        ];
        let mut bands = vec![Band::of("all", &requests, &shown)];
        for (name, range) in ranges {
            if !range.is_empty() {
                bands.push(Band::of(name, &requests[range], &shown));
            }
        }
        let tail = Tail::of(&bands);
        Some(Self { bands, tail })
    }
}

impl Tail {
    fn of(bands: &[Band]) -> Option<Self> {
        let band = |name: &str| bands.iter().find(|band| band.name == name);
        let (quick, slow) = (band(QUICKER_HALF)?, band(SLOWEST)?);
        let gains = slow.segments.iter().zip(&quick.segments).map(|(slow, quick)| (slow.segment, slow.ms - quick.ms));
        let (segment, segment_ms) = gains.max_by(|a, b| a.1.total_cmp(&b.1))?;
        let slower_by_ms = slow.mean_ms - quick.mean_ms;
        (slower_by_ms > 0.0).then_some(Self { slower_by_ms, segment, segment_ms })
    }
}

/// How some figure is spread, in milliseconds; quantiles are of the nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95% do not exceed it.
    pub p95: f64,
}

impl Spread {
    /// Of `values`; none without any.
    pub(super) fn of(values: impl Iterator<Item = u64>) -> Option<Self> {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let at = |percent: usize| values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
        Some(Self { p50: millis(at(50)?), p95: millis(at(95)?), mean: sum as f64 / 1e6 / values.len() as f64 })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parts(queue_ms: u64, decode_ms: u64) -> Parts {
        let mut parts = [0; SEGMENTS];
        parts[Segment::Queue as usize] = queue_ms * 1_000_000;
        parts[Segment::Decode as usize] = decode_ms * 1_000_000;
        parts
    }

    #[test]
    fn bands_hold_every_request_once() {
        for count in 1..=250_u64 {
            let profile = Profile::of((0..count).map(|index| parts(index, 5)).collect()).unwrap();
            let in_bands: usize = profile.bands[1..].iter().map(|band| band.requests).sum();
            assert_eq!((profile.bands[0].requests as u64, in_bands as u64), (count, count));
            let slowest = profile.bands.last().unwrap();
            assert_eq!((slowest.name.as_str(), slowest.requests as u64), (SLOWEST, (count / 20).max(1)));
            assert!(profile.bands.iter().all(|band| band.requests > 0));
        }
    }

    #[test]
    fn the_tail_names_what_the_slowest_wait_for() {
        let requests = (0..100).map(|index| if index < 95 { parts(1, 100) } else { parts(901, 110) }).collect();
        let profile = Profile::of(requests).unwrap();
        let all = &profile.bands[0];
        assert_eq!(all.segments.iter().map(|time| time.segment).collect::<Vec<_>>(), [Segment::Queue, Segment::Decode]);
        assert!((all.segments[0].ms - 46.0).abs() < 1e-9 && (all.mean_ms - 146.5).abs() < 1e-9);
        assert_eq!(profile.tail.unwrap(), Tail { slower_by_ms: 910.0, segment: Segment::Queue, segment_ms: 900.0 });
    }

    #[test]
    fn equal_requests_have_no_tail() {
        assert_eq!(Profile::of(vec![parts(1, 1); 40]).unwrap().tail, None);
        assert_eq!(Profile::of(Vec::new()), None);
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let spread = Spread::of((1..=20).map(|ms| ms * 1_000_000)).unwrap();
        assert_eq!(spread, Spread { mean: 10.5, p50: 10.0, p95: 19.0 });
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
