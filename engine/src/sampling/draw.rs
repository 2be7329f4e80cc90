//! One draw from a row of logits.
//!
//! A token's weight is `exp((logit - best) / temperature)`, so that of the most likely is 1 and min-p is a
//! bound on the weight. Tokens are walked by id until the drawn share of the kept weights is used up. The row
//! itself is left as it is, and only what may be drawn is ever sorted.

use super::scan::{self, BLOCK, Candidate};
use crate::generation::Sampling;

/// The token at `share`, in [0, 1), of what the filters keep.
pub(super) fn draw(logits: &[f32], sampling: &Sampling, share: f64) -> u32 {
    let best = scan::highest(logits);
    if !best.is_finite() {
        return scan::position_of_highest(logits);
    }
    let temperature = sampling.temperature;
    let mut kept = if sampling.top_k > 0 && (sampling.top_k as usize) < logits.len() {
        let top = weigh(scan::top(logits, sampling.top_k as usize), best, temperature);
        // top-p is a share of what top-k left.
        let total = total(&top);
        nucleus(top, sampling.top_p, total)
    } else if sampling.top_p < 1.0 {
        let total = scan::block_sums(logits, best, temperature).iter().sum();
        nucleus(likely(logits, best, temperature, (1.0 - f64::from(sampling.top_p)) * total), sampling.top_p, total)
    } else if sampling.min_p > 0.0 {
        // Somewhat low, so that rounding loses nobody: the weights decide.
        let bound = best + (sampling.min_p.ln() - 1e-3) * temperature;
        weigh(scan::at_least(logits, bound), best, temperature)
    } else {
        return pick_of_all(logits, best, temperature, share);
    };
    kept.retain(|candidate| candidate.value >= sampling.min_p);
    kept.sort_unstable_by_key(|candidate| candidate.id);
    pick(kept.iter().map(|kept| (kept.id, kept.value)), share * total(&kept))
}

/// Logits to weights.
fn weigh(mut candidates: Vec<Candidate>, best: f32, temperature: f32) -> Vec<Candidate> {
    for part in candidates.chunks_mut(BLOCK) {
        let mut logits = [0.0; BLOCK];
        logits.iter_mut().zip(part.iter()).for_each(|(logit, candidate)| *logit = candidate.value);
        let (weights, _) = scan::weights(&logits[..part.len()], best, temperature);
        part.iter_mut().zip(weights).for_each(|(candidate, weight)| candidate.value = weight);
    }
    candidates
}

/// The weights of all tokens but those that are too unlikely to matter: together less than `negligible`.
fn likely(logits: &[f32], best: f32, temperature: f32, negligible: f64) -> Vec<Candidate> {
    let each = (negligible / logits.len() as f64) as f32;
    weigh(scan::at_least(logits, best + each.ln() * temperature), best, temperature)
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.value)).sum()
}

/// The fewest candidates, most likely first, whose weights reach the share `top_p` of `total`.
fn nucleus(mut candidates: Vec<Candidate>, top_p: f32, total: f64) -> Vec<Candidate> {
    if top_p >= 1.0 {
        return candidates;
    }
    // The border lies in `low..high`; what is before it is kept, `missing` is what it lacks.
    let (mut low, mut high, mut missing) = (0, candidates.len(), f64::from(top_p) * total);
    while high - low > 32 {
        let middle = (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(middle, Candidate::before);
        let upper = self::total(&candidates[low..low + middle]);
        match upper >= missing {
            true => high = low + middle,
            false => (low, missing) = (low + middle, missing - upper),
        }
    }
    candidates[low..high].sort_unstable_by(Candidate::before);
    while low < high && (missing > 0.0 || low == 0) {
        missing -= f64::from(candidates[low].value);
        low += 1;
    }
    candidates.truncate(low);
    candidates
}

/// The token at which the weights so far first exceed `left`.
fn pick(weights: impl Iterator<Item = (u32, f32)>, mut left: f64) -> u32 {
    let mut last = 0;
    for (id, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        last = id;
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The same over the whole row: first which block it is, then which token of it.
fn pick_of_all(logits: &[f32], best: f32, temperature: f32, share: f64) -> u32 {
    let sums = scan::block_sums(logits, best, temperature);
    let mut left = share * sums.iter().sum::<f64>();
    let mut chosen = 0;
    for (block, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        chosen = block;
        if left < sum {
            break;
        }
        left -= sum;
    }
    let first = chosen * BLOCK;
    let (weights, len) = scan::weights(&logits[first..logits.len().min(first + BLOCK)], best, temperature);
    pick((first as u32..).zip(weights).take(len), left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is kept, and its weights, by sorting everything in double precision.
    fn reference(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
        let best = scan::highest(logits);
        let mut all: Vec<_> = (0..)
            .zip(logits)
            .map(|(id, &logit)| (id, (f64::from(logit - best) / f64::from(sampling.temperature)).exp()))
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k as usize);
        }
        let mut missing = f64::from(sampling.top_p) * all.iter().map(|token| token.1).sum::<f64>();
        let mut kept = Vec::new();
        for token in all {
            if missing > 0.0 {
                kept.push(token);
            }
            missing -= token.1;
        }
        kept.retain(|token| token.1 >= f64::from(sampling.min_p));
        kept.sort_by_key(|token| token.0);
        kept
    }

    proptest! {
        /// The token drawn is the one that lies at that share of the reference, or a neighbour of it where
        /// the share falls on a border.
        #[test]
        fn a_draw_is_that_of_a_full_sort(
            seed in 0..1000_u32,
            len in 1..2000_usize,
            temperature in 0.2..2.0_f32,
            top_k in prop_oneof![Just(0_u32), 1..100_u32],
            top_p in prop_oneof![Just(1.0_f32), 0.05..1.0_f32],
            min_p in prop_oneof![Just(0.0_f32), 0.01..0.5_f32],
            share in 0.0..1.0_f64,
        ) {
            let logits: Vec<f32> = (0..len as u32)
                .map(|id| (id.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 21) as f32)
                .collect();
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
            let drawn = draw(&logits, &sampling, share);
            let kept = reference(&logits, &sampling);
            let total: f64 = kept.iter().map(|token| token.1).sum();
            let mut before = 0.0;
            let near = kept.iter().any(|&(id, weight)| {
                let (low, high) = (before / total, (before + weight) / total);
                before += weight;
                id == drawn && (low - 1e-4..=high + 1e-4).contains(&share)
            });
            prop_assert!(near, "{drawn} is not at {share} of {kept:?}");
        }
    }

    #[test]
    fn rows_without_a_finite_best_are_decided_by_it() {
        let sampling = Sampling::default();
        assert_eq!(draw(&[0.0, f32::INFINITY], &sampling, 0.9), 1);
        assert_eq!(draw(&[f32::NEG_INFINITY; 3], &sampling, 0.9), 0);
        assert_eq!(draw(&[f32::NAN, 1.0, f32::NAN, f32::NEG_INFINITY], &sampling, 0.9), 1);
    }
}
