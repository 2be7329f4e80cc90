//! The two products of attention: queries with keys, weights with values.
//!
//! Both keep a block of `Q` queries by `N` vectors in registers, so that what is loaded from the cache and
//! widened serves `Q` queries. One sum is always added up in the same order, whatever `Q` and `N`.
#![expect(clippy::needless_range_loop, reason = "indices name queries and vectors of a block")]

use super::super::lanes::{Lanes, Stored, prefetch};

/// Bytes that are brought near together.
const LINE: usize = 64;

/// Numbers of the cache: `count` rows of them, `stride` bytes apart, and a vector at `first` in the first row.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) first: *const u8,
    /// Where rows lie that will be read soon.
    pub(super) ahead: *const u8,
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// `Σ query[d] · keys[d]` over the rows `d` of `keys`, for `Q` queries one after the other; all `keys` have the
/// same stride and count.
///
/// # Safety
/// `queries` has `Q` times as many numbers as there are rows, and `keys` a vector in each; the CPU has `L`'s
/// instruction set.
#[inline(always)]
pub(super) unsafe fn scores<L: Lanes, S: Stored, const Q: usize, const N: usize>(
    queries: *const f32,
    keys: [Rows; N],
) -> [[L; N]; Q] {
    let Rows { stride, count, .. } = keys[0];
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[L::zero(); N]; Q];
        for d in 0..count {
            let mut loaded = [L::zero(); N];
            for n in 0..N {
                loaded[n] = S::load(keys[n].first.add(d * stride));
                if d * stride % LINE < stride {
                    prefetch(keys[n].ahead.wrapping_add(d * stride));
                }
            }
            for q in 0..Q {
                let query = L::splat(*queries.add(q * count + d));
                for n in 0..N {
                    sums[q][n] = sums[q][n].multiply_add(query, loaded[n]);
                }
            }
        }
        sums
    }
}

/// `sums[q] += Σ weights[q][p] · values[p]` over the positions of `values`, `N` vectors of each.
///
/// # Safety
/// Each of `weights` has `values.count` numbers; `values` has `N` vectors in each row; each of `sums` has `N`
/// vectors; the CPU has `L`'s instruction set.
#[inline(always)]
pub(super) unsafe fn add_weighted<L: Lanes, S: Stored, const Q: usize, const N: usize>(
    weights: [*const f32; Q],
    values: Rows,
    sums: [*mut f32; Q],
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut block = [[L::zero(); N]; Q];
        for q in 0..Q {
            for n in 0..N {
                block[q][n] = L::load_f32(sums[q].add(n * L::WIDTH).cast());
            }
        }
        for position in 0..values.count {
            let mut loaded = [L::zero(); N];
            for n in 0..N {
                let at = n * L::WIDTH * S::BYTES;
                loaded[n] = S::load(values.first.add(position * values.stride + at));
                if at % LINE == 0 {
                    prefetch(values.ahead.wrapping_add(position * values.stride + at));
                }
            }
            for q in 0..Q {
                let weight = L::splat(*weights[q].add(position));
                for n in 0..N {
                    block[q][n] = block[q][n].multiply_add(weight, loaded[n]);
                }
            }
        }
        for q in 0..Q {
            for n in 0..N {
                block[q][n].store(sums[q].add(n * L::WIDTH));
            }
        }
    }
}
