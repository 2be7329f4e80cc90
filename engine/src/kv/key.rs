//! What a full block contains, as a digest: its tokens, all before them, and for whom they were computed.
//!
//! Keys and values of a position depend on every token up to it, so a block may stand in for another only if
//! all of that is the same. SHA-256, so that nobody can make up a prompt that is mistaken for another's.

use sha2::{Digest, Sha256};

/// The content of a full block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockKey(pub [u8; 32]);

/// The keys of one sequence's full blocks, one after the other as its tokens become known.
#[derive(Debug, Clone)]
pub struct KeyChain {
    block_size: usize,
    /// The last key, or the salt's where there is none yet.
    parent: BlockKey,
    /// Tokens that went into keys.
    hashed: usize,
}

impl KeyChain {
    /// The chain of a sequence that shares blocks with those of the same `salt` only.
    pub fn new(salt: u64, block_size: usize) -> Self {
        Self { block_size, parent: BlockKey(Sha256::digest(salt.to_le_bytes()).into()), hashed: 0 }
    }

    /// The keys of the blocks that became full; `tokens` are all of the sequence's.
    pub fn extend(&mut self, tokens: &[u32]) -> Vec<BlockKey> {
        let full = tokens[self.hashed..].chunks_exact(self.block_size);
        self.hashed += full.len() * self.block_size;
        full.map(|block| {
            let mut digest = Sha256::new_with_prefix(self.parent.0);
            // In one piece: the digest takes 64 bytes at a time.
            digest.update(block.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
            self.parent = BlockKey(digest.finalize().into());
            self.parent
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(salt: u64, tokens: &[u32]) -> Vec<BlockKey> {
        KeyChain::new(salt, 2).extend(tokens)
    }

    #[test]
    fn a_key_stands_for_the_salt_and_every_token_so_far() {
        let base = keys(0, &[1, 2, 3, 4, 5]);
        assert_eq!(base.len(), 2, "a block that is not full has no key");
        assert_eq!(keys(0, &[1, 2, 3, 4]), base);
        assert_eq!(keys(0, &[1, 2, 3, 9])[0], base[0]);
        for (salt, tokens) in [(1, [1, 2, 3, 4]), (0, [9, 2, 3, 4]), (0, [2, 1, 3, 4]), (0, [1, 2, 1, 2])] {
            let other = keys(salt, &tokens);
            assert!(other[1] != base[1] && !base.contains(&other[1]), "{salt} {tokens:?}");
        }
    }

    #[test]
    fn tokens_may_come_one_by_one() {
        let tokens = [5, 6, 7, 8, 9, 10];
        let mut chain = KeyChain::new(3, 2);
        let one_by_one: Vec<_> = (1..=tokens.len()).flat_map(|known| chain.extend(&tokens[..known])).collect();
        assert_eq!(one_by_one, keys(3, &tokens));
    }
}
