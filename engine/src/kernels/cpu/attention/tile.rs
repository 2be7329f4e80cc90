//! The rows that are attended for together, and what a thread keeps while it does.

use std::ops::Range;

use super::{SPAN, Step, span::SCORES};

/// Rows of one sequence, one after the other, under one key/value head.
#[derive(Debug, Clone)]
pub(super) struct Tile<'a> {
    /// The sequence's blocks.
    pub(super) blocks: &'a [u32],
    /// The first row in the step.
    pub(super) row: usize,
    pub(super) rows: usize,
    /// The first row's position.
    pub(super) position: usize,
    /// The positions that any of its rows sees.
    pub(super) seen: Range<usize>,
    /// The key/value head.
    pub(super) head: usize,
}

impl Tile<'_> {
    /// The spans its positions lie in.
    pub(super) fn spans(&self) -> Range<usize> {
        self.seen.start / SPAN..self.seen.end.div_ceil(SPAN)
    }

    /// Pairs of rows and positions, about.
    pub(super) fn work(&self) -> usize {
        self.rows * self.seen.len()
    }
}

/// Buffers of a thread, kept between tasks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The tile's queries divided by √head_dim, one after the other.
    pub(super) queries: Vec<f32>,
    /// [`SCORES`] per query, one per position; then weights.
    pub(super) scores: Vec<f32>,
    /// The positions of the span that each query sees.
    pub(super) seen: Vec<Range<usize>>,
    pub(super) total: Vec<f32>,
    pub(super) next: Vec<f32>,
}

impl Scratch {
    /// Takes the tile's queries in.
    pub(super) fn prepare(&mut self, step: &Step<'_>, tile: &Tile<'_>) {
        let head_dim = step.kv.shape().head_dim;
        let factor = 1.0 / (head_dim as f32).sqrt();
        let queries = tile.rows * step.group();
        self.queries.clear();
        for query in 0..queries {
            let query = &step.queries[step.at(tile, query)..][..head_dim];
            self.queries.extend(query.iter().map(|number| number * factor));
        }
        self.scores.resize(queries * SCORES, 0.0);
    }
}
