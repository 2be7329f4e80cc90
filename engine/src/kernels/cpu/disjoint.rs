//! A buffer of which tasks write different parts at once.
#![expect(unsafe_code, reason = "the borrow checker does not follow indices")]

use std::{marker::PhantomData, ops::Range};

/// A mutable slice that can be shared; whoever takes a part vouches that nobody else has it.
#[derive(Debug)]
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out by an unsafe method whose callers keep them apart.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No other part that overlaps it is alive.
    #[expect(clippy::mut_from_ref, reason = "that is what it is for")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice, and nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
