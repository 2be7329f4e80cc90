//! A uniform sample of bounded size: of all that was offered, each has the same chance to be kept.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

/// The sample so far; the same seed and offers keep the same.
#[derive(Debug, Clone)]
pub struct Sample<T> {
    kept: Vec<T>,
    offered: u64,
    limit: usize,
    rng: ChaCha8Rng,
}

impl<T> Sample<T> {
    /// An empty one that keeps at most `limit`.
    pub fn new(limit: usize, seed: u64) -> Self {
        Self { kept: Vec::new(), offered: 0, limit, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Offers one; it is made only if it is kept.
    pub fn offer(&mut self, make: impl FnOnce() -> T) {
        self.offered += 1;
        if self.kept.len() < self.limit {
            self.kept.push(make());
            return;
        }
        // Kept with probability limit / offered, in place of any of the others (Vitter's algorithm R).
        let place = usize::try_from(self.rng.random_range(0..self.offered)).unwrap_or(usize::MAX);
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = make();
        }
    }

    /// What was kept, in no order, and how many were offered.
    pub fn into_parts(self) -> (Vec<T>, u64) {
        (self.kept, self.offered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: usize, seed: u64, offered: u64) -> Vec<u64> {
        let mut sample = Sample::new(limit, seed);
        (0..offered).for_each(|number| sample.offer(|| number));
        let (kept, counted) = sample.into_parts();
        assert_eq!(counted, offered);
        kept
    }

    #[test]
    fn all_are_kept_while_there_is_room() {
        assert_eq!(kept(10, 1, 10), (0..10).collect::<Vec<_>>());
        assert!(kept(10, 1, 0).is_empty());
    }

    #[test]
    fn a_seed_decides_what_is_kept() {
        assert_eq!(kept(10, 1, 1000), kept(10, 1, 1000));
        assert_ne!(kept(10, 1, 1000), kept(10, 2, 1000));
    }

    #[test]
    fn early_and_late_ones_have_the_same_chance() {
        let means: Vec<f64> = (0..200).map(|seed| kept(50, seed, 1000).iter().sum::<u64>() as f64 / 50.0).collect();
        let mean = means.iter().sum::<f64>() / 200.0;
        // The standard error of this mean is 289 / √10,000 ≈ 2.9.
        assert!((mean - 499.5).abs() < 15.0, "mean {mean}");
    }
}
