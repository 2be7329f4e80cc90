//! What attention over some of a row's positions comes to, and joining two of them.
//!
//! A record is the weighted sum of the values, then the sum of the weights and the highest score: weights are
//! `e^(score - highest)`. Joining is the online softmax of Milakov & Gimelshein, arXiv 1805.02867.

use super::super::lanes::{Lanes, WIDEST};

/// Numbers of a record.
pub(super) fn record_len(head_dim: usize) -> usize {
    sums_len(head_dim) + WIDEST
}

/// Numbers of a record that the weighted sum has room for: whole vectors.
pub(super) fn sums_len(head_dim: usize) -> usize {
    head_dim.next_multiple_of(WIDEST)
}

/// Says that a record is of no positions.
pub(super) fn clear(record: &mut [f32]) {
    record.fill(0.0);
    set_weights(record, 0.0, f32::NEG_INFINITY);
}

/// Sets the sum of the weights and the highest score.
pub(super) fn set_weights(record: &mut [f32], sum: f32, highest: f32) {
    let at = record.len() - WIDEST;
    (record[at], record[at + 1]) = (sum, highest);
}

fn weights(record: &[f32]) -> (f32, f32) {
    let at = record.len() - WIDEST;
    (record[at], record[at + 1])
}

/// Adds the record of later positions to `total`. One of no positions changes nothing, whichever it is.
///
/// # Safety
/// The CPU has `L`'s instruction set; both are records of one length.
#[inline(always)]
pub(super) unsafe fn join<L: Lanes>(total: &mut [f32], next: &[f32]) {
    let ((sum, highest), (next_sum, next_highest)) = (weights(total), weights(next));
    // A weight sum is at least 1, or no number.
    if next_sum == 0.0 {
        return;
    }
    if sum == 0.0 {
        return total.copy_from_slice(next);
    }
    let both = highest.max(next_highest);
    let (scale, next_scale) = ((highest - both).exp(), (next_highest - both).exp());
    set_weights(total, sum * scale + next_sum * next_scale, both);
    let len = total.len() - WIDEST;
    // SAFETY: the sums are whole vectors.
    unsafe {
        for at in (0..len).step_by(L::WIDTH) {
            let next = L::load_f32(next.as_ptr().add(at).cast()).mul(L::splat(next_scale));
            let to = total.as_mut_ptr().add(at);
            next.multiply_add(L::load_f32(to.cast()), L::splat(scale)).store(to);
        }
    }
}

/// `out = sum of the weighted values / sum of the weights`.
pub(super) fn finish(record: &[f32], out: &mut [f32]) {
    let factor = 1.0 / weights(record).0;
    for (out, sum) in out.iter_mut().zip(record) {
        *out = sum * factor;
    }
}
