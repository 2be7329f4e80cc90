//! Attention of a step's rows over the paged cache, grouped-query, with an optional sliding window.
//!
//! A row's positions are cut into spans at multiples of [`SPAN`]. Each span is a softmax and a weighted sum of
//! its own ([`span`]), and spans are joined in their order ([`partial`]). Rows of a sequence are computed in
//! tiles that share what they read, and the spans of a tile by several threads when there are few tiles;
//! neither changes the order in which a row's numbers are added up, which depends on its position alone. What
//! lies in the cache beyond the positions a row sees never enters its sums.
#![expect(unsafe_code, reason = "SIMD over the cache; tasks write disjoint heads of one buffer")]

mod partial;
mod products;
mod span;
#[cfg(test)]
mod tests;
mod tile;

use std::{cell::RefCell, ops::Range};

use self::{
    partial::{finish, join, record_len},
    tile::{Scratch, Tile},
};
use super::{
    KvDtype, Threads,
    disjoint::Disjoint,
    kv_cache::LayerKv,
    lanes::{F16, F32, I8, Lanes, Simd, Stored, dispatch},
};

/// Positions whose softmax is computed as one.
const SPAN: usize = 256;
/// Query vectors computed together at most: what they share is read once.
const TILE: usize = 64;
/// Multiplications below which attention is not worth waking other threads for.
const SERIAL_WORK: usize = 1 << 18;
/// Tasks per thread from which on all threads end about together.
const TASKS: usize = 8;

/// Consecutive rows of one sequence in a step, as attention sees them.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// The sequence's blocks, in order.
    pub blocks: &'a [u32],
    /// The first row's position in its sequence.
    pub start: usize,
    /// How many rows.
    pub rows: usize,
}

/// What attention needs besides the cache.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Positions seen, the row's own included; `None` is all before it.
    pub window: Option<usize>,
}

impl Attention {
    /// `out[row] = softmax(q · kᵀ / sqrt(head_dim)) · v` per head, for the rows of all chunks in order;
    /// `queries` and `out` are `[rows, heads · head_dim]`.
    pub fn forward(&self, threads: &Threads, kv: LayerKv<'_>, chunks: &[Chunk<'_>], queries: &[f32], out: &mut [f32]) {
        let rows: usize = chunks.iter().map(|chunk| chunk.rows).sum();
        assert!(queries.len() == rows * self.heads * kv.shape().head_dim && out.len() == queries.len());
        let step = Step { simd: Simd::best(), attention: *self, kv, queries };
        step.forward(threads, chunks, out);
    }

    /// The positions that the row at `position` sees.
    fn seen(&self, position: usize) -> Range<usize> {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static PARTIALS: RefCell<Vec<f32>> = RefCell::default();
}

/// What all tasks of a step share.
struct Step<'a> {
    simd: Simd,
    attention: Attention,
    kv: LayerKv<'a>,
    queries: &'a [f32],
}

/// A tile's spans under one key/value head.
struct Task<'a> {
    tile: Tile<'a>,
    spans: Range<usize>,
    /// Where its partial results go; `None` if it is the tile's only task, which writes the output.
    partials: Option<usize>,
}

impl Step<'_> {
    fn group(&self) -> usize {
        self.attention.heads / self.kv.shape().kv_heads
    }

    fn forward(&self, threads: &Threads, chunks: &[Chunk<'_>], out: &mut [f32]) {
        let (tiles, work) = self.tiles(threads, chunks);
        let threads_used = if work < SERIAL_WORK { 1 } else { threads.count() };
        let (tasks, partials) = self.tasks(&tiles, work / (TASKS * threads_used), threads_used > 1);
        let out = &Disjoint::new(out);
        PARTIALS.with_borrow_mut(|buffer| {
            buffer.resize(partials.max(buffer.len()), 0.0);
            let partials = &Disjoint::new(buffer);
            let run = |count: usize, task: &(dyn Fn(usize) + Sync)| match threads_used {
                1 => (0..count).for_each(task),
                _ => threads.each(count, task),
            };
            run(tasks.len(), &|index| self.attend(&tasks[index], partials, out));
            let split: Vec<_> = tasks
                .iter()
                .filter(|task| task.partials.is_some() && task.spans.start == task.tile.spans().start)
                .collect();
            run(split.len(), &|index| self.join(split[index], partials, out));
        });
    }

    /// The tiles of every head, and the multiplications in all of them.
    fn tiles<'a>(&self, threads: &Threads, chunks: &[Chunk<'a>]) -> (Vec<Tile<'a>>, usize) {
        let (shape, group) = (self.kv.shape(), self.group());
        let rows: usize = chunks.iter().map(|chunk| chunk.rows).sum();
        let enough = rows * shape.kv_heads / (TASKS * threads.count());
        let tall = enough.clamp(1, (TILE / group).max(1));
        let mut tiles = Vec::new();
        // Head by head, so that tiles which read the same keys and values follow each other.
        for head in 0..shape.kv_heads {
            let mut row = 0;
            for chunk in chunks {
                for first in (0..chunk.rows).step_by(tall) {
                    let rows = tall.min(chunk.rows - first);
                    let seen = self.attention.seen(chunk.start + first).start..chunk.start + first + rows;
                    tiles.push(Tile {
                        blocks: chunk.blocks,
                        row: row + first,
                        rows,
                        position: chunk.start + first,
                        seen,
                        head,
                    });
                }
                row += chunk.rows;
            }
        }
        let work = tiles.iter().map(|tile| tile.work()).sum::<usize>() * group * shape.head_dim;
        (tiles, work)
    }

    /// One task per tile, but one per span of tiles with more than `much` work; and the length of all
    /// partial results.
    fn tasks<'a>(&self, tiles: &[Tile<'a>], much: usize, may_split: bool) -> (Vec<Task<'a>>, usize) {
        let (group, head_dim) = (self.group(), self.kv.shape().head_dim);
        let mut tasks = Vec::with_capacity(tiles.len());
        let mut partials = 0;
        for tile in tiles {
            let spans = tile.spans();
            if !may_split || spans.len() == 1 || tile.work() * group * head_dim <= much {
                tasks.push(Task { tile: tile.clone(), spans, partials: None });
                continue;
            }
            for span in spans {
                tasks.push(Task { tile: tile.clone(), spans: span..span + 1, partials: Some(partials) });
                partials += tile.rows * group * record_len(head_dim);
            }
        }
        (tasks, partials)
    }

    fn attend(&self, task: &Task<'_>, partials: &Disjoint<'_, f32>, out: &Disjoint<'_, f32>) {
        SCRATCH.with_borrow_mut(|scratch| match self.kv.shape().dtype {
            KvDtype::F16 => self.attend_stored::<F16>(task, scratch, partials, out),
            KvDtype::F32 => self.attend_stored::<F32>(task, scratch, partials, out),
            KvDtype::Q8 => self.attend_stored::<I8>(task, scratch, partials, out),
        });
    }

    fn attend_stored<S: Stored>(
        &self,
        task: &Task<'_>,
        scratch: &mut Scratch,
        partials: &Disjoint<'_, f32>,
        out: &Disjoint<'_, f32>,
    ) {
        let step = self;
        // SAFETY: `Simd` was detected; each task has its own partial results, rows and head.
        dispatch!(self.simd, attend::<S>, [<S: Stored>],
            (step: &Step<'_>, task: &Task<'_>, scratch: &mut Scratch, partials: &Disjoint<'_, f32>, out: &Disjoint<'_, f32>));
    }

    /// Joins the spans of the tile that `first` is the first task of.
    fn join(&self, first: &Task<'_>, partials: &Disjoint<'_, f32>, out: &Disjoint<'_, f32>) {
        let step = self;
        // SAFETY: `Simd` was detected; all spans are done, and this tile's rows and head are this task's.
        dispatch!(self.simd, join_spans, [], (step: &Step<'_>, first: &Task<'_>, partials: &Disjoint<'_, f32>, out: &Disjoint<'_, f32>));
    }

    /// Where a query's output (or the query itself) begins.
    fn at(&self, tile: &Tile<'_>, query: usize) -> usize {
        let (group, head_dim) = (self.group(), self.kv.shape().head_dim);
        ((tile.row + query / group) * self.attention.heads + tile.head * group + query % group) * head_dim
    }
}

/// # Safety
/// The CPU has `L`'s instruction set; no other task has the same part of `partials` or `out`.
#[inline(always)]
unsafe fn attend<L: Lanes, S: Stored>(
    step: &Step<'_>,
    task: &Task<'_>,
    scratch: &mut Scratch,
    partials: &Disjoint<'_, f32>,
    out: &Disjoint<'_, f32>,
) {
    let (tile, head_dim) = (&task.tile, step.kv.shape().head_dim);
    let (queries, len) = (tile.rows * step.group(), record_len(head_dim));
    scratch.prepare(step, tile);
    // SAFETY: by this function's contract.
    unsafe {
        if let Some(at) = task.partials {
            let records = partials.part(at..at + queries * len);
            return span::attend::<L, S>(step, tile, task.spans.start, scratch, records);
        }
        let (mut total, mut next) = (std::mem::take(&mut scratch.total), std::mem::take(&mut scratch.next));
        total.resize(queries * len, 0.0);
        next.resize(queries * len, 0.0);
        span::attend::<L, S>(step, tile, task.spans.start, scratch, &mut total);
        for span in task.spans.clone().skip(1) {
            span::attend::<L, S>(step, tile, span, scratch, &mut next);
            for (total, next) in total.chunks_exact_mut(len).zip(next.chunks_exact(len)) {
                join::<L>(total, next);
            }
        }
        for (query, total) in total.chunks_exact(len).enumerate() {
            let at = step.at(tile, query);
            finish(total, out.part(at..at + head_dim));
        }
        (scratch.total, scratch.next) = (total, next);
    }
}

/// # Safety
/// The CPU has `L`'s instruction set; all spans of the tile are done; no other task has the same part of `out`.
#[inline(always)]
unsafe fn join_spans<L: Lanes>(
    step: &Step<'_>,
    first: &Task<'_>,
    partials: &Disjoint<'_, f32>,
    out: &Disjoint<'_, f32>,
) {
    let (tile, head_dim) = (&first.tile, step.kv.shape().head_dim);
    let (queries, len) = (tile.rows * step.group(), record_len(head_dim));
    let Some(at) = first.partials else { return };
    // SAFETY: the records of a tile's spans lie one after the other from `at` on.
    unsafe {
        let records = partials.part(at..at + tile.spans().len() * queries * len);
        let (totals, rest) = records.split_at_mut(queries * len);
        for (query, total) in totals.chunks_exact_mut(len).enumerate() {
            for next in rest.chunks_exact(queries * len) {
                join::<L>(total, &next[query * len..][..len]);
            }
            let at = step.at(tile, query);
            finish(total, out.part(at..at + head_dim));
        }
    }
}
