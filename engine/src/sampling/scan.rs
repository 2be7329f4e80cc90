//! Passes over one row of logits. Each is written so that the compiler makes vector code of it, and sums in a
//! fixed order, so that the same row gives the same bits.

use crate::kernels::cpu::softmax_weights;

/// Numbers that go through a small buffer at once, so that a row is never copied.
pub(super) const BLOCK: usize = 256;
const LANES: usize = 16;

/// A token and its logit or weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) value: f32,
}

impl Candidate {
    /// The higher value first, then the lower id.
    pub(super) fn before(&self, other: &Self) -> std::cmp::Ordering {
        other.value.total_cmp(&self.value).then(self.id.cmp(&other.id))
    }
}

/// The highest of some numbers; NaN never is.
pub(super) fn highest(values: &[f32]) -> f32 {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut best = [f32::NEG_INFINITY; LANES];
    for lane in lanes {
        for (best, &value) in best.iter_mut().zip(lane) {
            *best = if value > *best { value } else { *best };
        }
    }
    best.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &value| if value > best { value } else { best })
}

/// The id of the highest logit; the lowest id among equals, 0 where all are NaN.
pub(super) fn position_of_highest(logits: &[f32]) -> u32 {
    let best = highest(logits);
    let mut blocks = logits.chunks(BLOCK).enumerate();
    let at = blocks.find_map(|(index, block)| {
        // Without a way out inside, this is vector code.
        let found = block.iter().fold(false, |found, &logit| found | (logit == best));
        found.then(|| index * BLOCK + block.iter().position(|&logit| logit == best).unwrap_or(0))
    });
    at.unwrap_or(0) as u32
}

/// All tokens whose value is at least `bound`, by id.
pub(super) fn at_least(values: &[f32], bound: f32) -> Vec<Candidate> {
    let mut kept = Vec::new();
    for (index, block) in values.chunks(LANES).enumerate() {
        if block.iter().fold(false, |any, &value| any | (value >= bound)) {
            let ids = (index * LANES) as u32..;
            let all = ids.zip(block).map(|(id, &value)| Candidate { id, value });
            kept.extend(all.filter(|candidate| candidate.value >= bound));
        }
    }
    kept
}

/// The `count` tokens with the highest logits, best first; NaN is none of them.
pub(super) fn top(logits: &[f32], count: usize) -> Vec<Candidate> {
    if count == 0 {
        return Vec::new();
    }
    // As many parts of the row as are asked for hold one each that is at least this high.
    let mut maxima: Vec<f32> = logits.chunks(64).map(highest).collect();
    let bound = match count <= maxima.len() {
        true => *maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1,
        false => f32::NEG_INFINITY,
    };
    let mut kept = at_least(logits, bound);
    if kept.len() > count {
        kept.select_nth_unstable_by(count - 1, Candidate::before);
        kept.truncate(count);
    }
    kept.sort_unstable_by(Candidate::before);
    kept
}

/// `exp((logit - best) / temperature)` of up to [`BLOCK`] logits.
pub(super) fn weights(logits: &[f32], best: f32, temperature: f32) -> ([f32; BLOCK], usize) {
    let mut buffer = [0.0; BLOCK];
    let weights = &mut buffer[..logits.len()];
    weights.copy_from_slice(logits);
    // The least temperatures have no inverse; with the largest number, all but the best weigh nothing, too.
    softmax_weights(weights, best, (1.0 / temperature).min(f32::MAX));
    (buffer, logits.len())
}

/// The sum of all weights of each block of the row; NaN counts nothing.
pub(super) fn block_sums(logits: &[f32], best: f32, temperature: f32) -> Vec<f64> {
    logits
        .chunks(BLOCK)
        .map(|block| {
            let (weights, _) = weights(block, best, temperature);
            f64::from(sum(&weights, block.len()))
        })
        .collect()
}

fn sum(weights: &[f32; BLOCK], len: usize) -> f32 {
    let (lanes, rest) = weights[..len].as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for lane in lanes {
        for (sum, &weight) in sums.iter_mut().zip(lane) {
            *sum += if weight > 0.0 { weight } else { 0.0 };
        }
    }
    sums.iter().chain(rest.iter().filter(|weight| **weight > 0.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without order, some of them equal, some not numbers.
    fn row(len: usize) -> Vec<f32> {
        let value = |index: usize| ((index * 7919 + 13) % 257) as f32 / 16.0 - 8.0;
        (0..len).map(|index| if index % 50 == 7 { f32::NAN } else { value(index) }).collect()
    }

    fn sorted(row: &[f32]) -> Vec<Candidate> {
        let mut all: Vec<_> = (0..).zip(row).map(|(id, &value)| Candidate { id, value }).collect();
        all.retain(|candidate| !candidate.value.is_nan());
        all.sort_by(Candidate::before);
        all
    }

    #[test]
    fn the_top_is_that_of_a_full_sort() {
        for len in [1, 15, 16, 17, 64, 300, 5000] {
            let row = row(len);
            let sorted = sorted(&row);
            assert_eq!(position_of_highest(&row), sorted[0].id, "{len}");
            for count in [0, 1, 2, 5, 40, 100, 6000] {
                assert_eq!(top(&row, count), sorted[..count.min(sorted.len())], "{len} {count}");
            }
        }
        assert_eq!(position_of_highest(&[f32::NAN, f32::NAN]), 0);
        assert!(top(&[f32::NAN], 3).is_empty());
    }

    #[test]
    fn at_the_least_temperature_the_best_has_all_the_weight() {
        for temperature in [f32::from_bits(1), 1e-40, 1e-38] {
            let (weights, len) = weights(&[1.0, 3.0, f32::NAN, f32::NEG_INFINITY, 2.9], 3.0, temperature);
            assert!(len == 5 && weights[2].is_nan());
            assert_eq!([weights[0], weights[1], weights[3], weights[4]], [0.0, 1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn sums_are_those_of_double_precision() {
        let row = row(1000);
        let exact: f64 = row.iter().filter(|x| !x.is_nan()).map(|&x| (f64::from(x - 8.0) / 2.0).exp()).sum();
        let total: f64 = block_sums(&row, 8.0, 2.0).iter().sum();
        assert!((total / exact - 1.0).abs() < 1e-6, "{total} {exact}");
    }
}
