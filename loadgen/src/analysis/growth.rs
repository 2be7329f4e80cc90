//! How the time grows with load: bands of requests by how many were under way when they were sent.

use serde::Serialize;

use super::bands::{Band, shown};
use super::segments::{Parts, Segment};

/// Bands that the requests are put into.
const BANDS: usize = 4;

/// A band of fewer is no band.
const ENOUGH: usize = 10;

/// The load of the highest band over that of the lowest: with less there is no growth to see.
const ENOUGH_SPREAD: f64 = 1.5;

/// How the time grows with load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Growth {
    /// From the lowest load to the highest; empty where the load did not vary enough.
    pub bands: Vec<LoadBand>,
    /// The segment whose share grows most between the first band and the last.
    pub grows_most: Option<Growing>,
    /// Why there are no bands.
    pub too_little: Option<String>,
}

/// Requests that met a similar load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadBand {
    /// The fewest under way when one of them was sent.
    pub in_flight_from: u64,
    /// The most.
    pub in_flight_to: u64,
    /// Where their time went.
    #[serde(flatten)]
    pub band: Band,
}

/// A segment that takes a larger part of the time at a higher load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growing {
    /// Which.
    pub segment: Segment,
    /// Its share at the lowest load.
    pub share_from: f64,
    /// Its share at the highest.
    pub share_to: f64,
    /// Its mean at the lowest load, in milliseconds.
    pub ms_from: f64,
    /// Its mean at the highest.
    pub ms_to: f64,
}

impl Growth {
    /// The growth over `requests`, each with the load it met.
    pub(super) fn of(mut requests: Vec<(u64, Parts)>) -> Self {
        requests.sort_by_key(|(load, _)| *load);
        let (lowest, highest) = match (requests.first(), requests.last()) {
            (Some(first), Some(last)) if requests.len() >= 2 * ENOUGH => (first.0, last.0),
            _ => return Self::nothing(format!("fewer than {} requests", 2 * ENOUGH)),
        };
        let shown = shown(requests.iter().map(|(_, parts)| parts));
        let bands: Vec<LoadBand> = groups(&requests).map(|group| load_band(group, &shown)).collect();
        let mean =
            |group: &[(u64, Parts)]| group.iter().map(|(load, _)| *load as f64).sum::<f64>() / group.len() as f64;
        let (first, last) = (groups(&requests).next(), groups(&requests).last());
        match first.zip(last) {
            Some((first, last)) if bands.len() > 1 && mean(last) >= ENOUGH_SPREAD * mean(first) => {
                Self { grows_most: Growing::of(&bands), bands, too_little: None }
            }
            _ => Self::nothing(format!("nearly all requests met the same load ({lowest} to {highest} under way)")),
        }
    }

    fn nothing(why: String) -> Self {
        Self { bands: Vec::new(), grows_most: None, too_little: Some(why) }
    }
}

/// Sorted requests in groups of about the same size, those that met the same load in the same group.
fn groups(requests: &[(u64, Parts)]) -> impl Iterator<Item = &[(u64, Parts)]> {
    let size = requests.len().div_ceil(BANDS).max(ENOUGH);
    let mut rest = requests;
    std::iter::from_fn(move || {
        let load = rest.get(size.min(rest.len()).checked_sub(1)?)?.0;
        let mut end = rest.partition_point(|(other, _)| *other <= load);
        if rest.len() - end < ENOUGH {
            end = rest.len();
        }
        let (group, after) = rest.split_at(end);
        rest = after;
        Some(group)
    })
}

fn load_band(group: &[(u64, Parts)], shown: &[Segment]) -> LoadBand {
    let (from, to) = (group.first().map_or(0, |first| first.0), group.last().map_or(0, |last| last.0));
    let parts: Vec<Parts> = group.iter().map(|(_, parts)| *parts).collect();
    let name = if from == to { from.to_string() } else { format!("{from}–{to}") };
    LoadBand { in_flight_from: from, in_flight_to: to, band: Band::of(name, &parts, shown) }
}

impl Growing {
    fn of(bands: &[LoadBand]) -> Option<Self> {
        let (low, high) = (&bands.first()?.band.segments, &bands.last()?.band.segments);
        let growing = low.iter().zip(high).map(|(low, high)| Self {
            segment: low.segment,
            share_from: low.share,
            share_to: high.share,
            ms_from: low.ms,
            ms_to: high.ms,
        });
        let gain = |growing: &Self| growing.share_to - growing.share_from;
        growing.max_by(|a, b| gain(a).total_cmp(&gain(b))).filter(|most| gain(most) > 0.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::analysis::segments::SEGMENTS;

    fn request(load: u64) -> (u64, Parts) {
        let mut parts = [0; SEGMENTS];
        parts[Segment::Queue as usize] = (load - 1) * 10_000_000;
        parts[Segment::Decode as usize] = 100_000_000 + load * 1_000_000;
        (load, parts)
    }

    #[test]
    fn the_segment_whose_share_grows_is_named() {
        let growth = Growth::of((0..200).map(|index| request(1 + index % 20)).collect());
        let loads: Vec<_> = growth.bands.iter().map(|band| (band.in_flight_from, band.in_flight_to)).collect();
        assert_eq!(loads, [(1, 5), (6, 10), (11, 15), (16, 20)]);
        assert_eq!(growth.bands.iter().map(|band| band.band.requests).sum::<usize>(), 200);
        let most = growth.grows_most.unwrap();
        assert_eq!(most.segment, Segment::Queue);
        assert!((most.ms_from - 20.0).abs() < 1e-9 && (most.ms_to - 170.0).abs() < 1e-9, "{most:?}");
        assert!(most.share_to > most.share_from);
    }

    #[test]
    fn without_a_spread_there_is_no_growth() {
        for (loads, why) in [
            (vec![1; 19], "fewer than 20 requests"),
            (vec![8; 300], "the same load (8 to 8 under way)"),
            ((0..300).map(|index| 40 + index % 10).collect(), "the same load (40 to 49 under way)"),
            ([vec![8; 200], vec![1; 5]].concat(), "the same load (1 to 8 under way)"),
        ] {
            let growth = Growth::of(loads.into_iter().map(request).collect());
            assert!(growth.bands.is_empty() && growth.grows_most.is_none());
            assert!(growth.too_little.as_ref().unwrap().contains(why), "{growth:?}");
        }
    }
}
