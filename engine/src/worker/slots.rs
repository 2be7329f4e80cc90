//! Numbers for the sequences that an executor keeps something of: small ones, given again.

use std::collections::BTreeSet;

/// The numbers that nobody has.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// All from here on.
    rest: usize,
    given_back: BTreeSet<usize>,
}

impl Slots {
    /// The lowest.
    pub(super) fn take(&mut self) -> usize {
        self.given_back.pop_first().unwrap_or_else(|| {
            self.rest += 1;
            self.rest - 1
        })
    }

    pub(super) fn give_back(&mut self, slot: usize) {
        debug_assert!(slot < self.rest && !self.given_back.contains(&slot));
        self.given_back.insert(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_given_first() {
        let mut slots = Slots::default();
        assert_eq!([slots.take(), slots.take(), slots.take()], [0, 1, 2]);
        [2, 0].into_iter().for_each(|slot| slots.give_back(slot));
        assert_eq!([slots.take(), slots.take(), slots.take()], [0, 2, 3]);
    }
}
