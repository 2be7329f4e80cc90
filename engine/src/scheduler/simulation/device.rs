//! What computes the simulation's steps: one after the other, each as late as can be, which is when it lands.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{content_after, token_after};
use crate::scheduler::{Chunk, SequenceId};

/// Keeps something for every position, and reads back what it kept through the tables a step was launched with.
pub(super) struct Device {
    block_size: usize,
    /// What lies in every position of every block.
    memory: Vec<u64>,
    /// What is to be kept for a sequence: first nothing but whose it is, then one for every token it has.
    contents: HashMap<SequenceId, Vec<u64>>,
    drawn: HashMap<SequenceId, u32>,
    /// Those that were in a step that failed: who launches on for them gets nonsense.
    broken: HashSet<SequenceId>,
    under_way: VecDeque<Vec<Part>>,
}

/// One sequence's part of a step as it was launched.
pub(super) struct Part {
    pub(super) chunk: Chunk,
    /// The tokens, guesses last; `None` is the one that the step before draws.
    pub(super) tokens: Vec<Option<u32>>,
    pub(super) blocks: Vec<u32>,
}

impl Device {
    pub(super) fn new(blocks: usize, block_size: usize) -> Self {
        Self {
            block_size,
            memory: vec![0; blocks * block_size],
            contents: HashMap::new(),
            drawn: HashMap::new(),
            broken: HashSet::new(),
            under_way: VecDeque::new(),
        }
    }

    pub(super) fn begin(&mut self, id: SequenceId, contents: Vec<u64>) {
        self.contents.insert(id, contents);
    }

    pub(super) fn launch(&mut self, step: Vec<Part>) {
        self.under_way.push_back(step);
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// What lies in the last position of a block.
    pub(super) fn end_of(&self, block: u32) -> u64 {
        self.memory[(block as usize + 1) * self.block_size - 1]
    }

    /// The oldest step fails; gives whose parts it had.
    pub(super) fn fail(&mut self) -> Vec<SequenceId> {
        let failed: Vec<_> = self.under_way.pop_front().into_iter().flatten().map(|part| part.chunk.id).collect();
        self.broken.extend(&failed);
        failed
    }

    /// Computes the oldest step; gives what it draws for each of its parts, as far as it was guessed right.
    pub(super) fn land(&mut self) -> Vec<(Chunk, Vec<u32>)> {
        let step = self.under_way.pop_front().unwrap_or_default();
        step.iter().for_each(|part| self.write(part));
        step.iter().map(|part| (part.chunk, self.draw(part))).collect()
    }

    fn write(&mut self, part: &Part) {
        let Chunk { id, start, .. } = part.chunk;
        let mut content = self.contents[&id].get(start).copied();
        for (position, token) in (start..).zip(&part.tokens) {
            let token = token.or_else(|| self.drawn.get(&id).copied());
            content = content.zip(token).map(|(content, token)| content_after(content, token));
            let slot = self.slot(part, position);
            assert!(content.is_some() || self.broken.contains(&id), "a token was drawn before it is computed on");
            self.memory[slot] = content.filter(|_| !self.broken.contains(&id)).unwrap_or(u64::MAX);
        }
    }

    fn draw(&mut self, part: &Part) -> Vec<u32> {
        let Chunk { id, start, tokens, guessed, samples } = part.chunk;
        if self.broken.contains(&id) {
            return vec![0; usize::from(samples)];
        }
        for position in 0..start + tokens {
            let expected = self.contents[&id][position + 1];
            assert_eq!(self.memory[self.slot(part, position)], expected, "{:?} at {position}", part.chunk);
        }
        let mut drawn = Vec::new();
        let contents = self.contents.entry(id).or_default();
        let rows = if samples { 1 + guessed } else { 0 };
        for row in 0..rows {
            assert_eq!(contents.len(), start + tokens + row + 1, "the newest token is the last that was computed");
            let token = token_after(contents[contents.len() - 1]);
            contents.push(content_after(contents[contents.len() - 1], token));
            drawn.push(token);
            if part.tokens.get(tokens + row) != Some(&Some(token)) {
                break;
            }
        }
        self.drawn.extend(drawn.last().map(|token| (id, *token)));
        drawn
    }

    fn slot(&self, part: &Part, position: usize) -> usize {
        part.blocks[position / self.block_size] as usize * self.block_size + position % self.block_size
    }
}
