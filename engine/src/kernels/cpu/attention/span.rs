//! One span of positions under one key/value head, for the queries of a tile: scores, softmax, weighted sum.
//!
//! Scores may be computed for positions that a query doesn't see, where it costs nothing, but softmax and
//! weighted sum keep to those it sees, in their order.

use std::ops::Range;

use super::{
    super::{
        kv_cache::PANEL,
        lanes::{Lanes, Stored, WIDEST, prefetch},
        softmax::{highest_into, sum_into, weights},
    },
    SPAN, Step,
    partial::{clear, record_len, set_weights, sums_len},
    products::{Rows, add_weighted, scores},
    tile::{Scratch, Tile},
};

/// Queries of one block.
const QUERIES: usize = 4;
/// Positions whose values are read by all queries before the next ones: they fit the first cache.
const STRIP: usize = 64;
/// Where the scores of a query's span begin: a panel may begin before the span, and end after it.
const LEAD: usize = PANEL;
/// From one query's scores to the next's.
pub(super) const SCORES: usize = LEAD + SPAN + PANEL;

/// The records of all queries for the span of that index.
///
/// # Safety
/// `scratch` was prepared with the tile and `records` has a record per query; the CPU has `L`'s instruction
/// set.
#[inline(always)]
pub(super) unsafe fn attend<L: Lanes, S: Stored>(
    step: &Step<'_>,
    tile: &Tile<'_>,
    index: usize,
    scratch: &mut Scratch,
    records: &mut [f32],
) {
    let (start, group) = (index * SPAN, step.group());
    scratch.seen.clear();
    scratch.seen.extend((0..tile.rows * group).map(|query| {
        let seen = step.attention.seen(tile.position + query / group);
        seen.start.max(start)..seen.end.min(start + SPAN)
    }));
    let span = Span { step, tile, start };
    // SAFETY: the caller's contract.
    unsafe {
        span.scores::<L, S>(scratch);
        span.softmax::<L, S>(scratch, records);
        span.sums::<L, S>(scratch, records);
    }
}

struct Span<'a> {
    step: &'a Step<'a>,
    tile: &'a Tile<'a>,
    start: usize,
}

/// A panel of keys under the tile's head.
#[derive(Clone, Copy)]
struct Panel {
    keys: Rows,
    /// Null if keys have no scales.
    scales: *const f32,
    /// The first position.
    position: usize,
}

impl Span<'_> {
    /// The positions that any query sees.
    fn seen(&self) -> Range<usize> {
        self.tile.seen.start.max(self.start)..self.tile.seen.end.min(self.start + SPAN)
    }

    /// The panel that `position` is in, and the first position after it.
    #[inline(always)]
    fn panel<S: Stored>(&self, position: usize) -> (Panel, usize) {
        let shape = self.step.kv.shape();
        let (block, within) = (position / shape.block_size, position % shape.block_size);
        let first = within / PANEL * PANEL;
        let width = PANEL.min(shape.block_size - first);
        let head = self.step.kv.keys(self.tile.blocks[block], self.tile.head);
        let position = block * shape.block_size + first;
        let numbers = head.numbers.wrapping_add(first * shape.head_dim * S::BYTES);
        let keys = Rows { first: numbers, ahead: numbers, stride: width * S::BYTES, count: shape.head_dim };
        // Null stays null: nobody reads it.
        (Panel { keys, scales: head.scales.wrapping_add(first), position }, position + width)
    }

    /// The values from `position` on, as far as their block goes.
    #[inline(always)]
    fn values<S: Stored>(&self, position: usize) -> Rows {
        let shape = self.step.kv.shape();
        let (block, within) = (position / shape.block_size, position % shape.block_size);
        let head = self.step.kv.values(self.tile.blocks[block], self.tile.head);
        let stride = shape.head_dim * S::BYTES;
        let first = head.numbers.wrapping_add(within * stride);
        Rows { first, ahead: first, stride, count: shape.block_size - within }
    }

    /// What is read [`STRIP`] positions after the keys at `position`: keys, then the span's values.
    #[inline(always)]
    fn ahead_of_keys<S: Stored>(&self, position: usize) -> *const u8 {
        let (seen, next) = (self.seen(), position + STRIP);
        if next < seen.end {
            let (panel, _) = self.panel::<S>(next);
            if S::BYTES == 1 {
                prefetch(panel.scales.cast());
            }
            return panel.keys.first;
        }
        self.values::<S>((seen.start + next - seen.end).min(seen.end - 1)).first
    }

    /// What is read [`STRIP`] positions after the values at `position`: values, then the next span's keys.
    #[inline(always)]
    fn ahead_of_values<S: Stored>(&self, position: usize) -> *const u8 {
        let (seen, next) = (self.seen(), position + STRIP);
        if next < seen.end {
            return self.values::<S>(next).first;
        }
        // One panel has as many bytes as the values of its positions.
        self.panel::<S>(next.min(self.tile.seen.end - 1)).0.keys.first
    }

    #[inline(always)]
    unsafe fn scores<L: Lanes, S: Stored>(&self, scratch: &mut Scratch) {
        let seen = self.seen();
        let mut position = seen.start;
        while position < seen.end {
            // Four panels of one shape fill the registers if each is one vector.
            let (first, mut after) = self.panel::<S>(position);
            let mut panels = [first; 4];
            let mut count = 1;
            while L::WIDTH == PANEL && count < 4 && after < seen.end {
                let (next, after_next) = self.panel::<S>(after);
                if next.keys.stride != first.keys.stride {
                    break;
                }
                (panels[count], after) = (next, after_next);
                count += 1;
            }
            for panel in &mut panels[..count] {
                panel.keys.ahead = self.ahead_of_keys::<S>(panel.position);
            }
            for (index, seen) in scratch.seen.chunks(QUERIES).enumerate() {
                let (low, high) = union(seen);
                if low >= after || high <= first.position {
                    continue;
                }
                let query = index * QUERIES;
                let queries = scratch.queries[query * first.keys.count..].as_ptr();
                let scores = scratch.scores[query * SCORES..].as_mut_ptr();
                // SAFETY: there are as many queries as `seen` has ranges, and each panel's scores have room from
                // `LEAD` before the span to a panel after it.
                unsafe {
                    match seen.len() {
                        1 => self.panel_scores::<L, S, 1>(queries, &panels[..count], scores),
                        2 => self.panel_scores::<L, S, 2>(queries, &panels[..count], scores),
                        3 => self.panel_scores::<L, S, 3>(queries, &panels[..count], scores),
                        _ => self.panel_scores::<L, S, QUERIES>(queries, &panels[..count], scores),
                    }
                }
                // It was asked for once.
                panels.iter_mut().for_each(|panel| panel.keys.ahead = panel.keys.first);
            }
            position = after;
        }
    }

    #[inline(always)]
    unsafe fn panel_scores<L: Lanes, S: Stored, const Q: usize>(
        &self,
        queries: *const f32,
        panels: &[Panel],
        out: *mut f32,
    ) {
        // SAFETY: the caller's contract; panels come in ascending order, so that what a narrow one writes beyond
        // its end is overwritten.
        unsafe {
            if L::WIDTH == PANEL && panels.len() == 4 {
                return self.vectors::<L, S, Q, 4>(queries, [0, 1, 2, 3].map(|index| (panels[index], 0)), out);
            }
            for panel in panels {
                match PANEL / L::WIDTH {
                    1 => self.vectors::<L, S, Q, 1>(queries, [(*panel, 0)], out),
                    2 => self.vectors::<L, S, Q, 2>(queries, [0, 1].map(|index| (*panel, index * L::WIDTH)), out),
                    _ => self.vectors::<L, S, Q, 4>(queries, [0, 1, 2, 3].map(|i| (*panel, i * L::WIDTH)), out),
                }
            }
        }
    }

    /// Scores of vectors of positions, each somewhere in a panel.
    #[inline(always)]
    unsafe fn vectors<L: Lanes, S: Stored, const Q: usize, const N: usize>(
        &self,
        queries: *const f32,
        vectors: [(Panel, usize); N],
        out: *mut f32,
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let keys = vectors.map(|(Panel { keys, .. }, at)| Rows { first: keys.first.add(at * S::BYTES), ..keys });
            let sums = scores::<L, S, Q, N>(queries, keys);
            for (q, sums) in sums.into_iter().enumerate() {
                for (sum, (panel, at)) in sums.into_iter().zip(vectors) {
                    let sum = if S::BYTES == 1 { sum.mul(L::load_f32(panel.scales.add(at).cast())) } else { sum };
                    sum.store(out.add(q * SCORES + LEAD + panel.position + at - self.start));
                }
            }
        }
    }

    /// Turns scores into weights; values' scales go into them.
    #[inline(always)]
    unsafe fn softmax<L: Lanes, S: Stored>(&self, scratch: &mut Scratch, records: &mut [f32]) {
        let len = record_len(self.step.kv.shape().head_dim);
        let per_query = scratch.scores.chunks_exact_mut(SCORES).zip(records.chunks_exact_mut(len));
        for (seen, (scores, record)) in scratch.seen.iter().zip(per_query) {
            clear(record);
            if seen.is_empty() {
                continue;
            }
            let scores = &mut scores[LEAD + seen.start - self.start..][..seen.len()];
            let (mut highest, mut sum) = (0.0, 0.0);
            // SAFETY: the caller's contract.
            unsafe {
                highest_into::<L>(scores, &mut highest);
                weights::<L>(scores, highest, 1.0);
                sum_into::<L>(scores, &mut sum);
            }
            set_weights(record, sum, highest);
            if S::BYTES == 1 {
                self.scale(seen.start, scores);
            }
        }
    }

    /// Multiplies the weights of positions from `position` on with the scales of their values.
    fn scale(&self, mut position: usize, mut weights: &mut [f32]) {
        while !weights.is_empty() {
            let block_size = self.step.kv.shape().block_size;
            let (block, within) = (position / block_size, position % block_size);
            let (now, later) = weights.split_at_mut(weights.len().min(block_size - within));
            let scales = self.step.kv.values(self.tile.blocks[block], self.tile.head).scales;
            for (index, weight) in now.iter_mut().enumerate() {
                // SAFETY: the block has a scale for each of its positions.
                *weight *= unsafe { *scales.add(within + index) };
            }
            (position, weights) = (position + now.len(), later);
        }
    }

    #[inline(always)]
    unsafe fn sums<L: Lanes, S: Stored>(&self, scratch: &Scratch, records: &mut [f32]) {
        let len = record_len(self.step.kv.shape().head_dim);
        let seen = self.seen();
        for strip in seen.clone().step_by(STRIP) {
            let strip = strip..seen.end.min(strip + STRIP);
            for (index, seen) in scratch.seen.chunks(QUERIES).enumerate() {
                let (query, ask) = (index * QUERIES, index == 0);
                let weights = scratch.scores[query * SCORES..].as_ptr();
                let records = records[query * len..].as_mut_ptr();
                let within = |seen: &Range<usize>| {
                    let start = seen.start.clamp(strip.start, strip.end);
                    start..seen.end.clamp(start, strip.end)
                };
                // What all of them see is read once; before and after it each goes on by itself.
                let common = within(&common(seen));
                let all = if common.is_empty() || seen.len() == 1 { strip.end..strip.end } else { common };
                // SAFETY: there are as many queries, weights and records as `seen` has ranges.
                unsafe {
                    for (query, seen) in seen.iter().enumerate() {
                        let (seen, records) = (within(seen), records.add(query * len));
                        let before = seen.start..seen.end.min(all.start);
                        self.weighted::<L, S, 1>(weights.add(query * SCORES), before, records, ask);
                    }
                    match seen.len() {
                        _ if all.is_empty() => continue,
                        2 => self.weighted::<L, S, 2>(weights, all.clone(), records, ask),
                        3 => self.weighted::<L, S, 3>(weights, all.clone(), records, ask),
                        _ => self.weighted::<L, S, QUERIES>(weights, all.clone(), records, ask),
                    }
                    for (query, seen) in seen.iter().enumerate() {
                        let records = records.add(query * len);
                        let after = all.end..within(seen).end;
                        self.weighted::<L, S, 1>(weights.add(query * SCORES), after, records, ask);
                    }
                }
            }
        }
    }

    /// Adds the weighted values of the positions in `range` to `Q` records.
    #[inline(always)]
    unsafe fn weighted<L: Lanes, S: Stored, const Q: usize>(
        &self,
        weights: *const f32,
        range: Range<usize>,
        records: *mut f32,
        asks_ahead: bool,
    ) {
        let head_dim = self.step.kv.shape().head_dim;
        let mut position = range.start;
        while position < range.end {
            let mut values = self.values::<S>(position);
            values.count = values.count.min(range.end - position);
            if asks_ahead {
                values.ahead = self.ahead_of_values::<S>(position);
            }
            // SAFETY: the caller's contract; the cache may be read, and a record written, to the end of the last
            // vector of `head_dim`.
            unsafe {
                let weights = weights.add(LEAD + position - self.start);
                run::<L, S, Q>(weights, values, records, head_dim);
            }
            position += values.count;
        }
    }
}

/// One run of values with all its dimensions.
#[inline(always)]
unsafe fn run<L: Lanes, S: Stored, const Q: usize>(
    weights: *const f32,
    values: Rows,
    records: *mut f32,
    head_dim: usize,
) {
    let len = record_len(head_dim);
    let vectors = head_dim.div_ceil(L::WIDTH);
    debug_assert!(vectors * L::WIDTH <= sums_len(head_dim) && L::WIDTH <= WIDEST);
    let mut vector = 0;
    // SAFETY: the caller's contract.
    unsafe {
        let weights: [*const f32; Q] = std::array::from_fn(|q| weights.add(q * SCORES));
        while vector < vectors {
            let at = vector * L::WIDTH;
            let values = Rows {
                first: values.first.add(at * S::BYTES),
                ahead: values.ahead.wrapping_add(at * S::BYTES),
                ..values
            };
            let sums: [*mut f32; Q] = std::array::from_fn(|q| records.add(q * len + at));
            // Vectors of eight come with 16 registers only.
            if L::WIDTH != 8 && vectors - vector >= 4 {
                add_weighted::<L, S, Q, 4>(weights, values, sums);
                vector += 4;
            } else if vectors - vector >= 2 {
                add_weighted::<L, S, Q, 2>(weights, values, sums);
                vector += 2;
            } else {
                add_weighted::<L, S, Q, 1>(weights, values, sums);
                vector += 1;
            }
        }
    }
}

/// What lies between the lowest and the highest position that any sees.
fn union(seen: &[Range<usize>]) -> (usize, usize) {
    let some = seen.iter().filter(|seen| !seen.is_empty());
    some.fold((usize::MAX, 0), |(low, high), seen| (low.min(seen.start), high.max(seen.end)))
}

/// The positions that all see.
fn common(seen: &[Range<usize>]) -> Range<usize> {
    seen.iter().fold(0..usize::MAX, |common, seen| common.start.max(seen.start)..common.end.min(seen.end))
}
