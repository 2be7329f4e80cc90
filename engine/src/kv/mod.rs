//! Which KV blocks are held, by how many sequences, and what the others still contain.
//!
//! - `pool`: [`BlockPool`]: every block, its holders, and the index of what full blocks contain;
//! - `key`: [`BlockKey`]: what a full block contains, as a digest of tokens, computed outside the pool;
//! - `free_list`: the blocks nobody holds, in the order in which they are taken again.
//!
//! The numbers themselves lie in [`crate::kernels::cpu::KvCache`].

mod free_list;
mod key;
mod pool;

pub use key::{BlockKey, KeyChain};
pub use pool::BlockPool;
