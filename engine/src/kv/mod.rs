//! Which KV blocks are free.
//!
//! Every block is either free or held by exactly one sequence; giving back a block twice is a bug and
//! panics. The numbers themselves lie in [`crate::kernels::cpu::KvCache`].

/// The pool of KV blocks.
#[derive(Debug, Clone)]
pub struct BlockPool {
    free: Vec<u32>,
    taken: Vec<bool>,
    block_size: usize,
}

impl BlockPool {
    /// A pool of `blocks` free blocks of `block_size` positions.
    pub fn new(blocks: usize, block_size: usize) -> Self {
        Self { free: (0..blocks as u32).rev().collect(), taken: vec![false; blocks], block_size }
    }

    /// Positions per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.taken.len()
    }

    /// Blocks nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks needed for that many positions.
    pub fn blocks_for(&self, positions: usize) -> usize {
        positions.div_ceil(self.block_size)
    }

    /// Takes a block; `None` when all are held.
    pub fn take(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.taken[block as usize] = true;
        Some(block)
    }

    /// Gives blocks back.
    pub fn give_back(&mut self, blocks: impl IntoIterator<Item = u32>) {
        for block in blocks {
            assert!(std::mem::take(&mut self.taken[block as usize]), "block {block} was given back twice");
            self.free.push(block);
        }
    }
}
