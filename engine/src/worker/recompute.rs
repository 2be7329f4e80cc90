//! How far a sequence was computed, and what it lost of that and must compute again.

/// Positions of one sequence.
#[derive(Debug, Default)]
pub(super) struct Recompute {
    /// Computed so far.
    reached: usize,
    /// So many must be computed again before it is where it was.
    lost: usize,
    /// Whether what is launched next goes into what it lost.
    due: bool,
}

impl Recompute {
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// It lost its blocks.
    pub(super) fn lose(&mut self) {
        self.lost = self.lost.max(self.reached);
        self.due = true;
    }

    /// A step that computes it up to `end` is under way.
    pub(super) fn launch(&mut self, end: usize) {
        self.due &= end < self.lost;
    }

    /// It was computed up to `end`; true if nothing is lost any more.
    pub(super) fn land(&mut self, end: usize) -> bool {
        self.reached = end;
        if end >= self.lost {
            self.lost = 0;
        }
        self.lost == 0
    }

    /// It was computed up to `end`, but into blocks that it has lost since.
    pub(super) fn land_in_vain(&mut self, end: usize) {
        self.lost = self.lost.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_under_way_when_the_blocks_were_lost_is_lost_too() {
        let mut recompute = Recompute::default();
        recompute.launch(10);
        assert!(recompute.land(10) && !recompute.is_due());
        recompute.launch(11);
        recompute.lose();
        recompute.land_in_vain(11);
        for (end, due) in [(6, true), (11, false)] {
            assert!(recompute.is_due());
            recompute.launch(end);
            assert_eq!(recompute.is_due(), due);
        }
        recompute.launch(12);
        assert_eq!([6, 11, 12].map(|end| recompute.land(end)), [false, true, true]);
    }
}
