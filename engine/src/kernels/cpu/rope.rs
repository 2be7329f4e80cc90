//! Rotary embedding: the angles of one step's rows, applied in every layer.
#![expect(unsafe_code, reason = "SIMD over heads")]

use super::{
    Threads,
    by_rows::by_rows,
    lanes::{Lanes, Simd, dispatch},
};
use crate::loader::{ModelConfig, RopeLayout};

/// The turns of a step's rows (RoFormer, arXiv 2104.09864).
#[derive(Debug)]
pub struct Rope {
    inverse_frequencies: Vec<f32>,
    layout: RopeLayout,
    head_dim: usize,
    /// Per row, in the order of a head's numbers: `head_dim / 2` cosines, or each of them twice if the two
    /// numbers that turn together lie side by side.
    cosines: Vec<f32>,
    /// Likewise; of the two the first is negative.
    sines: Vec<f32>,
}

/// How far each pair of a head's numbers turns from one position to the next.
pub(crate) fn inverse_frequencies(config: &ModelConfig) -> Vec<f32> {
    let inverse = |i: usize| 1.0 / f64::from(config.rope_theta).powf(2.0 * i as f64 / config.head_dim as f64);
    (0..config.head_dim / 2).map(|i| inverse(i) as f32).collect()
}

impl Rope {
    /// The frequencies `theta^(-2i / head_dim)`.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            inverse_frequencies: inverse_frequencies(config),
            layout: config.rope_layout,
            head_dim: config.head_dim,
            cosines: Vec::new(),
            sines: Vec::new(),
        }
    }

    /// Computes the angles of a step's rows.
    pub fn prepare(&mut self, positions: &[u32]) {
        self.cosines.clear();
        self.sines.clear();
        for &position in positions {
            for frequency in &self.inverse_frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                match self.layout {
                    RopeLayout::HalfSplit => {
                        self.cosines.push(cos);
                        self.sines.push(sin);
                    }
                    RopeLayout::Interleaved => {
                        self.cosines.extend([cos, cos]);
                        self.sines.extend([-sin, sin]);
                    }
                }
            }
        }
    }

    /// Turns every head of every row of `x` (`[rows, heads · head_dim]`).
    pub fn apply(&self, threads: &Threads, x: &mut [f32], heads: usize) {
        self.apply_with(Simd::best(), threads, x, heads);
    }

    fn apply_with(&self, simd: Simd, threads: &Threads, x: &mut [f32], heads: usize) {
        let width = heads * self.head_dim;
        let turns = match self.layout {
            RopeLayout::HalfSplit => self.head_dim / 2,
            RopeLayout::Interleaved => self.head_dim,
        };
        by_rows(threads, width, [x], |rows, [x]| {
            for (row, x) in rows.zip(x.chunks_exact_mut(width)) {
                let cosines = &self.cosines[row * turns..][..turns];
                let sines = &self.sines[row * turns..][..turns];
                for head in x.chunks_exact_mut(self.head_dim) {
                    // SAFETY: `Simd` was detected; the turns have half as many numbers as a head, or as many.
                    match self.layout {
                        RopeLayout::HalfSplit => {
                            dispatch!(simd, half_split, [], (head: &mut [f32], cosines: &[f32], sines: &[f32]));
                        }
                        RopeLayout::Interleaved => {
                            dispatch!(simd, interleaved, [], (head: &mut [f32], cosines: &[f32], sines: &[f32]));
                        }
                    }
                }
            }
        });
    }
}

/// # Safety
/// There are half as many cosines and sines as numbers in `head`; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn half_split<L: Lanes>(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let half = cosines.len();
    // SAFETY: indices stay below the halves' length.
    unsafe {
        let (first, second) = (head.as_mut_ptr(), head.as_mut_ptr().add(half));
        for at in (0..half).step_by(L::WIDTH) {
            let count = L::WIDTH.min(half - at);
            let load =
                [first.add(at), second.add(at), cosines.as_ptr().add(at).cast_mut(), sines.as_ptr().add(at).cast_mut()];
            let mut loaded = [L::zero(); 4];
            for (loaded, from) in loaded.iter_mut().zip(load) {
                *loaded = if count == L::WIDTH { L::load_f32(from.cast()) } else { L::load_part(from, count) };
            }
            let [a, b, cos, sin] = loaded;
            let turned = [L::zero().sub(b.mul(sin)).multiply_add(a, cos), a.mul(sin).multiply_add(b, cos)];
            for (turned, to) in turned.into_iter().zip(load) {
                if count == L::WIDTH {
                    turned.store(to);
                } else {
                    turned.store_part(to, count);
                }
            }
        }
    }
}

/// # Safety
/// There are as many cosines and sines as numbers in `head`; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn interleaved<L: Lanes>(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    // SAFETY: indices stay below the common length, which is even, as every vector's is.
    unsafe {
        for at in (0..cosines.len()).step_by(L::WIDTH) {
            let count = L::WIDTH.min(cosines.len() - at);
            let to = head.as_mut_ptr().add(at);
            if count == L::WIDTH {
                let (x, cos) = (L::load_f32(to.cast()), L::load_f32(cosines.as_ptr().add(at).cast()));
                let sin = L::load_f32(sines.as_ptr().add(at).cast());
                x.swap_pairs().mul(sin).multiply_add(x, cos).store(to);
            } else {
                let (x, cos) = (L::load_part(to, count), L::load_part(cosines.as_ptr().add(at), count));
                let sin = L::load_part(sines.as_ptr().add(at), count);
                x.swap_pairs().mul(sin).multiply_add(x, cos).store_part(to, count);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn rope(layout: RopeLayout, head_dim: usize) -> Rope {
        let inverse_frequencies = (0..head_dim / 2).map(|i| 0.7f32.powi(i as i32)).collect();
        Rope { inverse_frequencies, layout, head_dim, cosines: Vec::new(), sines: Vec::new() }
    }

    #[test]
    fn every_instruction_set_turns_pairs_in_both_layouts_whatever_the_rest_of_the_step() {
        let positions: Vec<u32> = (0..90).map(|index| index * 37 % 1000).collect();
        for head_dim in [2, 8, 64, 80, 128] {
            let (heads, half) = (3, head_dim / 2);
            let width = heads * head_dim;
            let x: Vec<f32> = (0..90 * width).map(|index| ((index * 7919) % 1013) as f32 * 0.01 - 5.0).collect();
            for layout in [RopeLayout::HalfSplit, RopeLayout::Interleaved] {
                for (simd, count) in Simd::available().into_iter().flat_map(|simd| [(simd, 1), (simd, 3)]) {
                    let threads = Threads::new(count).unwrap();
                    let mut rope = rope(layout, head_dim);
                    rope.prepare(&positions);
                    let mut turned = x.clone();
                    rope.apply_with(simd, &threads, &mut turned, heads);
                    for at in 0..90 * heads * half {
                        let (head, i) = (at / half, at % half);
                        let (a, b) = match layout {
                            RopeLayout::HalfSplit => (head * head_dim + i, head * head_dim + i + half),
                            RopeLayout::Interleaved => (head * head_dim + 2 * i, head * head_dim + 2 * i + 1),
                        };
                        let angle = f64::from(positions[head / heads] as f32 * rope.inverse_frequencies[i]);
                        let (sin, cos) = angle.sin_cos();
                        let (x, y) = (f64::from(x[a]), f64::from(x[b]));
                        assert!((f64::from(turned[a]) - (x * cos - y * sin)).abs() < 1e-5, "{layout:?} {simd:?}");
                        assert!((f64::from(turned[b]) - (y * cos + x * sin)).abs() < 1e-5, "{layout:?} {simd:?}");
                    }
                    rope.prepare(&positions[89..]);
                    let mut alone = x[89 * width..].to_vec();
                    rope.apply_with(simd, &threads, &mut alone, heads);
                    assert_eq!(alone, turned[89 * width..]);
                }
            }
        }
    }
}
