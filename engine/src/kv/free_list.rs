//! The blocks nobody holds: a doubly linked list within one array, so that any block leaves it at once.

/// Blocks in the order in which they are to be taken.
#[derive(Debug, Clone)]
pub(super) struct FreeList {
    /// One per block, and one for the list's two ends.
    links: Vec<Link>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

impl FreeList {
    /// An empty list for blocks below `blocks`.
    pub(super) fn new(blocks: usize) -> Self {
        let end = blocks as u32;
        Self { links: vec![Link { before: end, after: end }; blocks + 1], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// To be taken before all others.
    pub(super) fn push_front(&mut self, block: u32) {
        let end = self.end();
        self.insert(block, end, self.links[end as usize].after);
    }

    /// To be taken after all others.
    pub(super) fn push_back(&mut self, block: u32) {
        let end = self.end();
        self.insert(block, self.links[end as usize].before, end);
    }

    /// Takes the first.
    pub(super) fn pop_front(&mut self) -> Option<u32> {
        let first = self.links[self.end() as usize].after;
        (first != self.end()).then(|| {
            self.remove(first);
            first
        })
    }

    /// Takes a block that is in the list.
    pub(super) fn remove(&mut self, block: u32) {
        let Link { before, after } = self.links[block as usize];
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        self.len -= 1;
    }

    fn insert(&mut self, block: u32, before: u32, after: u32) {
        self.links[block as usize] = Link { before, after };
        self.links[before as usize].after = block;
        self.links[after as usize].before = block;
        self.len += 1;
    }

    fn end(&self) -> u32 {
        self.links.len() as u32 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_leave_in_order_or_from_the_middle() {
        let mut list = FreeList::new(5);
        for block in [3, 1, 4] {
            list.push_back(block);
        }
        list.push_front(0);
        list.remove(1);
        assert_eq!(list.len(), 3);
        assert_eq!(std::iter::from_fn(|| list.pop_front()).collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!((list.len(), list.pop_front()), (0, None));
    }
}
