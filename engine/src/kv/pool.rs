//! All KV blocks: held by sequences, or free.
//!
//! A block is held by any number of sequences; those that share it only read it, since only full blocks are
//! shared. A free block keeps its content, and may be found by it, until it is taken for something else: those
//! whose content nobody can ask for go first, then those that were free the longest. Giving back a block that
//! nobody holds is a bug and panics.

use std::collections::{HashMap, hash_map::Entry};

use super::{BlockKey, free_list::FreeList};

/// The pool of KV blocks.
#[derive(Debug, Clone)]
pub struct BlockPool {
    block_size: usize,
    blocks: Vec<Block>,
    free: FreeList,
    index: HashMap<BlockKey, u32>,
}

#[derive(Debug, Clone, Default)]
struct Block {
    holders: u32,
    /// What it contains, while it can be found by it.
    key: Option<BlockKey>,
}

impl BlockPool {
    /// A pool of `blocks` free and empty blocks of `block_size` positions.
    pub fn new(blocks: usize, block_size: usize) -> Self {
        let mut free = FreeList::new(blocks);
        (0..blocks as u32).for_each(|block| free.push_back(block));
        Self { block_size, blocks: vec![Block::default(); blocks], free, index: HashMap::new() }
    }

    /// Positions per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks nobody holds, whatever they contain.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that somebody holds.
    pub fn used(&self) -> usize {
        self.total() - self.free()
    }

    /// Blocks needed for that many positions.
    pub fn blocks_for(&self, positions: usize) -> usize {
        positions.div_ceil(self.block_size)
    }

    /// Takes a block for new content; `None` when all are held.
    pub fn take(&mut self) -> Option<u32> {
        let number = self.free.pop_front()?;
        let block = &mut self.blocks[number as usize];
        if let Some(key) = block.key.take() {
            self.index.remove(&key);
        }
        block.holders = 1;
        Some(number)
    }

    /// Holds the blocks that contain the beginning of what `keys` say, as far as there are any.
    pub fn take_cached(&mut self, keys: &[BlockKey]) -> Vec<u32> {
        let cached: Vec<u32> = keys.iter().map_while(|key| self.index.get(key).copied()).collect();
        for &number in &cached {
            let block = &mut self.blocks[number as usize];
            if block.holders == 0 {
                self.free.remove(number);
            }
            block.holders += 1;
        }
        cached
    }

    /// Makes a full block that is held findable; a second one of the same content is not needed.
    pub fn publish(&mut self, block: u32, key: BlockKey) {
        debug_assert!(self.blocks[block as usize].holders > 0 && self.blocks[block as usize].key.is_none());
        if let Entry::Vacant(place) = self.index.entry(key) {
            place.insert(block);
            self.blocks[block as usize].key = Some(key);
        }
    }

    /// Gives back a sequence's blocks. The last are taken again first: a beginning is of use without its end,
    /// but not the other way round.
    pub fn give_back(&mut self, blocks: impl DoubleEndedIterator<Item = u32>) {
        for number in blocks.rev() {
            let block = &mut self.blocks[number as usize];
            assert!(block.holders > 0, "block {number} was given back twice");
            block.holders -= 1;
            match (block.holders, block.key) {
                (0, Some(_)) => self.free.push_back(number),
                (0, None) => self.free.push_front(number),
                _ => {}
            }
        }
    }

    /// Who holds a block how often, and what can be found where.
    #[cfg(test)]
    pub(crate) fn inspect(&self) -> (Vec<u32>, &HashMap<BlockKey, u32>) {
        (self.blocks.iter().map(|block| block.holders).collect(), &self.index)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn key(content: u8) -> BlockKey {
        BlockKey([content; 32])
    }

    /// A pool in which one sequence filled blocks with these contents, and left.
    fn filled(blocks: usize, contents: &[u8]) -> BlockPool {
        let mut pool = BlockPool::new(blocks, 4);
        let held: Vec<u32> = contents.iter().map(|_| pool.take().unwrap()).collect();
        for (&block, &content) in held.iter().zip(contents) {
            pool.publish(block, key(content));
        }
        pool.give_back(held.into_iter());
        pool
    }

    #[test]
    fn what_was_given_back_is_found_until_its_block_is_needed() {
        let mut pool = filled(4, &[1, 2, 3]);
        assert_eq!((pool.free(), pool.used()), (4, 0));
        let empty = pool.take().unwrap();
        assert_eq!(empty, 3, "blocks without content are taken first");
        let end = pool.take().unwrap();
        assert_eq!(end, 2, "then the end of what was given back");
        let found = pool.take_cached(&[key(1), key(2), key(3)]);
        assert_eq!(found, [0, 1], "as far as it is still there");
        assert_eq!((pool.free(), pool.take()), (0, None));
        pool.give_back(found.into_iter().chain([empty, end]));
        assert_eq!(pool.free(), 4);
    }

    #[test]
    fn a_shared_block_is_free_when_its_last_holder_leaves() {
        let mut pool = filled(2, &[1]);
        let (first, second) = (pool.take_cached(&[key(1)]), pool.take_cached(&[key(1)]));
        assert_eq!((first.as_slice(), second.as_slice(), pool.free()), ([0].as_slice(), [0].as_slice(), 1));
        pool.give_back(first.into_iter());
        assert_eq!(pool.free(), 1);
        pool.give_back(second.into_iter());
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn the_longest_free_content_goes_first() {
        let mut pool = filled(3, &[1, 2, 3]);
        let used_again = pool.take_cached(&[key(1), key(2), key(3)]).split_off(2);
        pool.give_back([0, 1].into_iter());
        pool.give_back(used_again.into_iter());
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>(), [1, 0, 2]);
        assert!(pool.take_cached(&[key(1)]).is_empty(), "nothing is left to be found");
    }

    #[test]
    fn the_same_content_twice_is_kept_once() {
        let mut pool = filled(3, &[1, 1]);
        assert_eq!(pool.take_cached(&[key(1)]), [0]);
        assert_eq!(pool.take(), Some(1), "the second copy is as good as empty");
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_block_given_back_twice_is_a_bug() {
        filled(1, &[1]).give_back([0].into_iter());
    }
}
