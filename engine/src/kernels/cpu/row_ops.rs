//! The small operations on rows of activations: norm, rotary embedding, gate, residual.

use crate::loader::{ModelConfig, RopeLayout};

/// `out = x / sqrt(mean(x²) + epsilon) · weight`, per row of `weight.len()`.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mut partial = [0.0f32; 16];
        for chunk in x.chunks(16) {
            for (sum, v) in partial.iter_mut().zip(chunk) {
                *sum += v * v;
            }
        }
        let mean = partial.iter().sum::<f32>() / width as f32;
        let scale = 1.0 / (mean + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

/// `gate = silu(gate) · up`.
pub fn silu_gate(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + (-*gate).exp()) * up;
    }
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rotary embedding: the angles of one step's rows, applied in every layer.
#[derive(Debug)]
pub struct Rope {
    inverse_frequencies: Vec<f32>,
    layout: RopeLayout,
    head_dim: usize,
    /// `[rows, head_dim / 2]` of (cos, sin).
    turns: Vec<(f32, f32)>,
}

impl Rope {
    /// The frequencies `theta^(-2i / head_dim)` (RoFormer, arXiv 2104.09864).
    pub fn new(config: &ModelConfig) -> Self {
        let half = config.head_dim / 2;
        let inverse_frequencies = (0..half)
            .map(|i| (1.0 / f64::from(config.rope_theta).powf(2.0 * i as f64 / config.head_dim as f64)) as f32)
            .collect();
        Self { inverse_frequencies, layout: config.rope_layout, head_dim: config.head_dim, turns: Vec::new() }
    }

    /// Computes the angles of a step's rows.
    pub fn prepare(&mut self, positions: &[u32]) {
        self.turns.clear();
        for &position in positions {
            self.turns.extend(self.inverse_frequencies.iter().map(|frequency| {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                (cos, sin)
            }));
        }
    }

    /// Turns every head of every row of `x` (`[rows, heads · head_dim]`).
    pub fn apply(&self, x: &mut [f32], heads: usize) {
        let half = self.head_dim / 2;
        for (row, turns) in x.chunks_exact_mut(heads * self.head_dim).zip(self.turns.chunks_exact(half)) {
            for head in row.chunks_exact_mut(self.head_dim) {
                for (i, &(cos, sin)) in turns.iter().enumerate() {
                    let (a, b) = match self.layout {
                        RopeLayout::HalfSplit => (i, i + half),
                        RopeLayout::Interleaved => (2 * i, 2 * i + 1),
                    };
                    (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
                }
            }
        }
    }
}
