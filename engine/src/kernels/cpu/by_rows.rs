//! Sharing the rows of buffers among threads.
#![expect(unsafe_code, reason = "tasks write disjoint rows of one buffer")]

use std::ops::Range;

use super::Threads;

/// Numbers below which a piece of rows is not worth another thread.
const LEAST: usize = 1 << 14;

/// Calls `task` on pieces of whole rows of `width`, the same ones of each buffer, until all are done.
pub(super) fn by_rows<const N: usize>(
    threads: &Threads,
    width: usize,
    buffers: [&mut [f32]; N],
    task: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
) {
    let rows = buffers.first().map_or(0, |buffer| buffer.len() / width);
    assert!(buffers.iter().all(|buffer| buffer.len() == rows * width));
    let pieces = Pieces(buffers.map(<[f32]>::as_mut_ptr));
    threads.ranges(rows, LEAST.div_ceil(width), |rows| {
        let Pieces(starts) = &pieces;
        // SAFETY: ranges are disjoint and within the rows, which the assert found in every buffer.
        let piece = starts
            .map(|start| unsafe { std::slice::from_raw_parts_mut(start.add(rows.start * width), rows.len() * width) });
        task(rows, piece);
    });
}

struct Pieces<const N: usize>([*mut f32; N]);

// SAFETY: every task gets rows of its own.
unsafe impl<const N: usize> Sync for Pieces<N> {}
