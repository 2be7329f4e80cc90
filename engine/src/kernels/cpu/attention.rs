//! Attention of a step's rows over the paged cache, grouped-query, with an optional sliding window.
//!
//! Every row and key/value head is a task of its own, computed the same way whatever else is in the step:
//! scores of all positions it sees, softmax with the maximum subtracted, weighted sum of the values.
#![expect(unsafe_code, reason = "SIMD over the cache; tasks write disjoint heads of one buffer")]

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    kv_cache::{KvCache, KvNumbers},
    lanes::{F16, F32, Lanes, Simd, Stored, dispatch},
};

/// One row of a step, as attention sees it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The sequence's blocks, in order.
    pub blocks: &'a [u32],
    /// The row's position in its sequence.
    pub position: usize,
}

/// What attention needs besides the cache.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Positions seen, the row's own included; `None` is all before it.
    pub window: Option<usize>,
}

/// Multiplications below which attention is not worth waking other threads for.
const SERIAL_WORK: usize = 1 << 18;

impl Attention {
    /// `out[row] = softmax(q · kᵀ / sqrt(head_dim)) · v` per head; `queries` and `out` are
    /// `[rows, heads · head_dim]`.
    pub fn forward(&self, cache: &KvCache, layer: usize, rows: &[Row<'_>], queries: &[f32], out: &mut [f32]) {
        let shape = cache.shape();
        let width = self.heads * shape.head_dim;
        assert!(queries.len() == rows.len() * width && out.len() == queries.len());
        let group = self.heads / shape.kv_heads * shape.head_dim;
        let simd = Simd::best();
        let task = |(index, out): (usize, &mut [f32])| {
            let (row, kv_head) = (index / shape.kv_heads, index % shape.kv_heads);
            let query = &queries[row * width + kv_head * group..][..group];
            let head = Head { cache, layer, kv_head, row: rows[row], first: self.first(rows[row].position) };
            SCORES.with_borrow_mut(|scores| head.attend(simd, query, scores, out));
        };
        let work: usize = rows.iter().map(|row| (row.position + 1 - self.first(row.position)) * width).sum();
        if work < SERIAL_WORK {
            out.chunks_exact_mut(group).enumerate().for_each(task);
        } else {
            out.par_chunks_exact_mut(group).enumerate().for_each(task);
        }
    }

    /// The first position a row sees.
    fn first(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// One key/value head of one row, with the query heads that share it.
struct Head<'a> {
    cache: &'a KvCache,
    layer: usize,
    kv_head: usize,
    row: Row<'a>,
    first: usize,
}

impl Head<'_> {
    fn attend(&self, simd: Simd, query: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
        let layer = self.cache.layer(self.layer);
        match (&layer.keys, &layer.values) {
            (KvNumbers::F16(keys), KvNumbers::F16(values)) => {
                self.stored::<F16>(simd, (bytes_of(keys), bytes_of(values)), query, (scores, out));
            }
            (KvNumbers::F32(keys), KvNumbers::F32(values)) => {
                self.stored::<F32>(simd, (bytes_of(keys), bytes_of(values)), query, (scores, out));
            }
            _ => unreachable!("keys and values are stored alike"),
        }
    }

    fn stored<S: Stored>(
        &self,
        simd: Simd,
        kv: (&[u8], &[u8]),
        query: &[f32],
        (scores, out): (&mut Vec<f32>, &mut [f32]),
    ) {
        let head_dim = self.cache.shape().head_dim;
        scores.resize(self.row.position + 1 - self.first, 0.0);
        for (query, out) in query.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
            let (head, scores) = (self, &mut scores[..]);
            // SAFETY: `Simd` was detected; the slices bound every read and write below.
            dispatch!(simd, one_query::<S>, [<S: Stored>],
                (head: &Head<'_>, kv: (&[u8], &[u8]), query: &[f32], scores: &mut [f32], out: &mut [f32]));
        }
    }

    /// Contiguous runs of the positions seen: (index of the first number in the cache, positions).
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let shape = self.cache.shape();
        let mut position = self.first;
        std::iter::from_fn(move || {
            if position > self.row.position {
                return None;
            }
            let within = position % shape.block_size;
            let count = (shape.block_size - within).min(self.row.position + 1 - position);
            let start = self.cache.run(self.row.blocks[position / shape.block_size], self.kv_head);
            position += count;
            Some((start + within * shape.head_dim, count))
        })
    }
}

fn bytes_of<T>(numbers: &[T]) -> &[u8] {
    // SAFETY: `T` is u16 or f32, which any bytes may view.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), std::mem::size_of_val(numbers)) }
}

/// # Safety
/// The CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn one_query<L: Lanes, S: Stored>(
    head: &Head<'_>,
    (keys, values): (&[u8], &[u8]),
    query: &[f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let scale = 1.0 / (query.len() as f32).sqrt();
    let bytes = query.len() * S::BYTES;
    let mut index = 0;
    let mut highest = f32::NEG_INFINITY;
    for (start, count) in head.runs() {
        for key in keys[start * S::BYTES..][..count * bytes].chunks_exact(bytes) {
            // SAFETY: `key` has as many numbers as `query`.
            let score = unsafe { dot::<L, S>(query, key) } * scale;
            highest = highest.max(score);
            scores[index] = score;
            index += 1;
        }
    }
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - highest).exp();
        total += *score;
    }
    out.fill(0.0);
    index = 0;
    for (start, count) in head.runs() {
        for value in values[start * S::BYTES..][..count * bytes].chunks_exact(bytes) {
            // SAFETY: `value` has as many numbers as `out`.
            unsafe { add_scaled::<L, S>(out, value, scores[index] / total) };
            index += 1;
        }
    }
}

/// # Safety
/// `b` has as many numbers as `a`; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn dot<L: Lanes, S: Stored>(a: &[f32], b: &[u8]) -> f32 {
    let whole = a.len() / L::WIDTH * L::WIDTH;
    // SAFETY: indices stay below `a.len()`.
    unsafe {
        let mut sum = L::zero();
        for i in (0..whole).step_by(L::WIDTH) {
            sum = sum.multiply_add(L::load_f32(a.as_ptr().add(i).cast()), S::load(b.as_ptr().add(i * S::BYTES)));
        }
        let mut sum = sum.sum();
        for (i, a) in a.iter().enumerate().skip(whole) {
            sum += a * S::load_one(b.as_ptr().add(i * S::BYTES));
        }
        sum
    }
}

/// `out += scale · b`.
///
/// # Safety
/// `b` has as many numbers as `out`; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn add_scaled<L: Lanes, S: Stored>(out: &mut [f32], b: &[u8], scale: f32) {
    let whole = out.len() / L::WIDTH * L::WIDTH;
    // SAFETY: indices stay below `out.len()`.
    unsafe {
        let factor = L::splat(scale);
        for i in (0..whole).step_by(L::WIDTH) {
            let to = out.as_mut_ptr().add(i);
            L::load_f32(to.cast()).multiply_add(factor, S::load(b.as_ptr().add(i * S::BYTES))).store(to);
        }
        for (i, out) in out.iter_mut().enumerate().skip(whole) {
            *out += scale * S::load_one(b.as_ptr().add(i * S::BYTES));
        }
    }
}
