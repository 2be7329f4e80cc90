//! Every instruction set and storage against f64, and every way to cut a step against each other.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![expect(clippy::single_range_in_vec_init, reason = "a step of one chunk is meant")]

use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::kernels::cpu::{KvCache, KvShape};

/// Queries, keys and values of one sequence, stored in a cache in which all else is NaN.
struct Case {
    attention: Attention,
    cache: KvCache,
    blocks: Vec<u32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    dtype: KvDtype,
    window: Option<usize>,
}

const USUAL: Sizes = Sizes { heads: 8, kv_heads: 2, head_dim: 64, block_size: 16, dtype: KvDtype::F16, window: None };

impl Case {
    fn random(sizes: Sizes, positions: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(positions as u64);
        let mut random = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-2.0..2.0)).collect() };
        let (width, kv_width) = (sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
        Self::of(sizes, random(positions * width), random(positions * kv_width), random(positions * kv_width))
    }

    fn of(sizes: Sizes, queries: Vec<f32>, keys: Vec<f32>, values: Vec<f32>) -> Self {
        let Sizes { heads, kv_heads, head_dim, block_size, dtype, window } = sizes;
        let positions = keys.len() / (kv_heads * head_dim);
        let count = positions.div_ceil(block_size);
        // The sequence's blocks lie backwards, with a foreign one before each.
        let blocks: Vec<u32> = (0..count as u32).rev().map(|index| 2 * index + 1).collect();
        let mut cache = KvCache::new(KvShape { layers: 2, kv_heads, head_dim, block_size, dtype }, 2 * count).unwrap();
        let slots: Vec<u32> = (0..(2 * count * block_size) as u32).collect();
        let nothing = vec![f32::NAN; slots.len() * kv_heads * head_dim];
        let threads = Threads::new(1).unwrap();
        cache.write(&threads, 1, &slots, &nothing, &nothing);
        let slot = |position: usize| blocks[position / block_size] * block_size as u32 + (position % block_size) as u32;
        let slots: Vec<u32> = (0..positions).map(slot).collect();
        cache.write(&threads, 1, &slots, &keys, &values);
        Self { attention: Attention { heads, window }, cache, blocks, queries, keys, values }
    }

    fn width(&self) -> usize {
        self.attention.heads * self.cache.shape().head_dim
    }

    fn positions(&self) -> usize {
        self.queries.len() / self.width()
    }

    /// The output of steps whose chunks are these rows of the sequence.
    fn run(&self, simd: Simd, threads: &Threads, rows: &[Range<usize>]) -> Vec<f32> {
        let width = self.width();
        let chunk = |rows: &Range<usize>| Chunk { blocks: &self.blocks, start: rows.start, rows: rows.len() };
        let chunks: Vec<_> = rows.iter().map(chunk).collect();
        let queries: Vec<f32> =
            rows.iter().flat_map(|rows| &self.queries[rows.start * width..rows.end * width]).copied().collect();
        let mut out = vec![f32::NAN; queries.len()];
        let step = Step { simd, attention: self.attention, kv: self.cache.layer(1), queries: &queries };
        step.forward(threads, &chunks, &mut out);
        out
    }

    /// What is stored in place of a row of keys or values.
    fn stored(&self, row: &[f32]) -> Vec<f64> {
        let scale = row.iter().fold(0.0f32, |largest, number| largest.max(number.abs())) / 127.0;
        let each = |&number: &f32| match self.cache.shape().dtype {
            KvDtype::F32 => f64::from(number),
            KvDtype::F16 => f16::from_f32(number).to_f64(),
            KvDtype::Q8 if scale == 0.0 => 0.0,
            KvDtype::Q8 => f64::from((number * (1.0 / scale)).round_ties_even()) * f64::from(scale),
        };
        row.iter().map(each).collect()
    }

    /// One head of one row by the book.
    fn exact(&self, position: usize, head: usize) -> Vec<f64> {
        let KvShape { kv_heads, head_dim, .. } = self.cache.shape();
        let kv_head = head / (self.attention.heads / kv_heads);
        let query = &self.queries[position * self.width() + head * head_dim..][..head_dim];
        let at = |seen: usize| (seen * kv_heads + kv_head) * head_dim;
        let seen = self.attention.seen(position);
        let score = |seen: usize| -> f64 {
            let key = self.stored(&self.keys[at(seen)..][..head_dim]);
            query.iter().zip(key).map(|(a, b)| f64::from(*a) * b).sum::<f64>() / (head_dim as f64).sqrt()
        };
        let scores: Vec<f64> = seen.clone().map(score).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
        let mut out = vec![0.0; head_dim];
        for (position, score) in seen.zip(&scores) {
            let weight = (score - highest).exp() / total;
            let value = self.stored(&self.values[at(position)..][..head_dim]);
            out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
        }
        out
    }

    fn check(&self, rows: &[Range<usize>], tolerance: f64) {
        let head_dim = self.cache.shape().head_dim;
        let positions: Vec<usize> = rows.iter().cloned().flatten().collect();
        // A few rows of each are enough for the slow oracle.
        let some: Vec<usize> = (0..positions.len()).filter(|row| row % 7 == 0 || row + 1 == positions.len()).collect();
        let heads = [0, self.attention.heads / 2, self.attention.heads - 1];
        let exact: Vec<_> = some.iter().map(|&row| heads.map(|head| self.exact(positions[row], head))).collect();
        for simd in Simd::available() {
            let out = self.run(simd, &Threads::new(2).unwrap(), rows);
            for (&row, exact) in some.iter().zip(&exact) {
                for (head, exact) in heads.into_iter().zip(exact) {
                    let ours = &out[row * self.width() + head * head_dim..][..head_dim];
                    let error = ours.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                    assert!(error < tolerance, "{simd:?} position {} head {head}: {error}", positions[row]);
                    assert!(ours.iter().all(|number| number.is_finite()));
                }
            }
        }
    }
}

#[test]
fn every_size_and_storage_agrees_with_f64() {
    for dtype in [KvDtype::F16, KvDtype::F32, KvDtype::Q8] {
        for (heads, kv_heads) in [(3, 3), (8, 2), (14, 2), (6, 1)] {
            for head_dim in [8, 64, 80, 128] {
                for block_size in [1, 4, 16, 17] {
                    let sizes = Sizes { heads, kv_heads, head_dim, block_size, dtype, window: None };
                    Case::random(sizes, 40).check(&[0..19, 39..40], 1e-5);
                }
            }
        }
    }
}

#[test]
fn long_sequences_and_windows_agree_with_f64() {
    for dtype in [KvDtype::F16, KvDtype::F32, KvDtype::Q8] {
        for window in [None, Some(1), Some(5), Some(256), Some(300)] {
            for (block_size, heads) in [(16, 8), (17, 2), (1024, 14), (3, 6)] {
                let sizes = Sizes { window, block_size, heads, head_dim: 24, dtype, ..USUAL };
                Case::random(sizes, 530).check(&[0..1, 250..290, 511..512, 512..530], 1e-5);
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_a_step_is_cut() {
    for (dtype, window, heads, block_size) in [
        (KvDtype::F16, None, 8, 16),
        (KvDtype::F32, Some(590), 14, 5),
        (KvDtype::Q8, None, 14, 1),
        (KvDtype::F16, Some(7), 6, 48),
    ] {
        let case = Case::random(Sizes { heads, block_size, dtype, window, ..USUAL }, 600);
        for simd in Simd::available() {
            let whole = case.run(simd, &Threads::new(1).unwrap(), &[0..600]);
            for count in [1, 2, 3] {
                let threads = Threads::new(count).unwrap();
                assert!(case.run(simd, &threads, &[0..1, 1..258, 258..261, 261..600]) == whole, "{simd:?} {count}");
                let some = [599, 3, 255, 256, 0, 511, 540];
                let rows = some.map(|position| position..position + 1);
                let expected: Vec<f32> =
                    some.iter().flat_map(|row| &whole[row * case.width()..][..case.width()]).copied().collect();
                assert!(case.run(simd, &threads, &rows) == expected, "{simd:?} {count}");
                for (index, row) in rows.iter().enumerate() {
                    let alone = case.run(simd, &threads, std::slice::from_ref(row));
                    assert!(alone == expected[index * case.width()..][..case.width()], "{simd:?} {count} {row:?}");
                }
            }
        }
    }
}

#[test]
fn extreme_scores_agree_with_f64() {
    let count = 300 * USUAL.kv_heads * USUAL.head_dim;
    let pattern = |factor: f32| (0..count).map(move |index| ((index * 7919) % 1013) as f32 * factor - 506.0 * factor);
    let queries = |factor: f32| -> Vec<f32> { (0..4).flat_map(|_| pattern(factor)).collect() };
    let values: Vec<f32> = pattern(0.004).collect();
    // All equal: the values' mean.
    Case::of(USUAL, queries(0.1), vec![0.5; count], values.clone()).check(&[0..300], 1e-5);
    Case::of(USUAL, vec![0.0; 4 * count], pattern(0.1).collect(), values.clone()).check(&[0..300], 1e-5);
    // So far apart that one takes all, exactly.
    for dtype in [KvDtype::F32, KvDtype::F16] {
        let sizes = Sizes { dtype, ..USUAL };
        Case::of(sizes, queries(1e4), pattern(10.0).collect(), values.clone()).check(&[0..300], 1e-4);
    }
    let tiny = Case::of(Sizes { dtype: KvDtype::F32, ..USUAL }, queries(1e-20), pattern(1e-20).collect(), values);
    tiny.check(&[0..300], 1e-5);
}

#[test]
fn what_a_row_does_not_see_changes_nothing() {
    for dtype in [KvDtype::F16, KvDtype::F32, KvDtype::Q8] {
        let sizes = Sizes { dtype, heads: 2, window: Some(20), ..USUAL };
        let case = Case::random(sizes, 64);
        let broken = |values: &[f32]| -> Vec<f32> {
            let mut values = values.to_vec();
            let width = values.len() / 64;
            values[40 * width..41 * width].fill(f32::INFINITY);
            values[41 * width..42 * width].fill(f32::NAN);
            values
        };
        let sick = Case::of(sizes, case.queries.clone(), broken(&case.keys), broken(&case.values));
        for simd in Simd::available() {
            let threads = Threads::new(2).unwrap();
            let (healthy, sick) = (case.run(simd, &threads, &[0..64]), sick.run(simd, &threads, &[0..64]));
            let width = case.width();
            assert_eq!(healthy[..40 * width], sick[..40 * width], "{dtype:?} {simd:?}: before");
            assert_eq!(healthy[61 * width..], sick[61 * width..], "{dtype:?} {simd:?}: out of the window");
            assert!(sick[41 * width..60 * width].iter().all(|number| number.is_nan()), "{dtype:?} {simd:?}: seen");
        }
    }
}

#[test]
fn one_position_gives_its_value() {
    let case = Case::random(Sizes { dtype: KvDtype::F32, ..USUAL }, 1);
    assert_eq!(case.positions(), 1);
    for simd in Simd::available() {
        let out = case.run(simd, &Threads::new(1).unwrap(), &[0..1]);
        for (head, out) in out.chunks_exact(64).enumerate() {
            assert_eq!(*out, case.values[head / 4 * 64..][..64], "{simd:?}");
        }
    }
}

#[test]
fn bytes_are_near_single_precision() {
    let sizes = Sizes { dtype: KvDtype::F32, ..USUAL };
    let exact = Case::random(sizes, 400);
    let (queries, keys, values) = (exact.queries.clone(), exact.keys.clone(), exact.values.clone());
    // Weights alike: what is left is the values' rounding.
    let zeros = vec![0.0; queries.len()];
    let bytes = Sizes { dtype: KvDtype::Q8, ..sizes };
    let mean = Case::of(sizes, zeros.clone(), keys.clone(), values.clone());
    let mean_of_bytes = Case::of(bytes, zeros, keys.clone(), values.clone());
    let ours = Case::of(bytes, queries, keys, values);
    assert!(ours.cache.shape().block_bytes() * 3 < exact.cache.shape().block_bytes());
    let threads = Threads::new(1).unwrap();
    for simd in Simd::available() {
        let difference = |a: &Case, b: &Case| {
            let (a, b) = (a.run(simd, &threads, &[0..400]), b.run(simd, &threads, &[0..400]));
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(difference(&mean, &mean_of_bytes) <= 2.0 / 254.0 * 1.001, "{simd:?}");
        assert!(difference(&exact, &ours) <= 0.05, "{simd:?}: {}", difference(&exact, &ours));
    }
}
