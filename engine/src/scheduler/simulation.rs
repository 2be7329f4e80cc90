//! Seeded runs of scheduler and block pool: random arrivals, lengths, pauses and cancellations, prompts that
//! share beginnings, and a memory whose every position is checked against what a model would have put there.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Chunk, Limits, Plan, Policy, Scheduler, SequenceId};
use crate::kv::{BlockKey, BlockPool, KeyChain};

/// A request as its worker would see it.
struct Live {
    tokens: Vec<u32>,
    /// What the model keeps for a position: all tokens up to it, and whose they are.
    contents: Vec<u64>,
    chain: Option<KeyChain>,
    wanted: usize,
    paused: bool,
    /// Tokens guessed to come next: right, or from some place on wrong.
    guess: Vec<u32>,
}

struct World {
    scheduler: Scheduler,
    limits: Limits,
    cached: bool,
    guesses: bool,
    live: BTreeMap<SequenceId, Live>,
    next_id: u64,
    /// What lies in every position of every block.
    memory: Vec<u64>,
    /// What lies in the last position of a block with that key.
    ends: HashMap<BlockKey, u64>,
    found: usize,
}

impl Live {
    fn new(salt: u64, wanted: usize, chain: Option<KeyChain>) -> Self {
        Self { tokens: Vec::new(), contents: vec![salt], chain, wanted, paused: false, guess: Vec::new() }
    }

    /// Learns a token; gives the keys of blocks it fills.
    fn push(&mut self, token: u32, world: &mut HashMap<BlockKey, u64>) -> Vec<BlockKey> {
        self.tokens.push(token);
        self.contents.push(content_after(self.contents[self.contents.len() - 1], token));
        let keys = self.chain.as_mut().map_or_else(Vec::new, |chain| chain.extend(&self.tokens));
        world.extend(keys.iter().map(|key| (*key, self.contents[self.tokens.len()])));
        keys
    }

    fn content(&self, position: usize) -> u64 {
        self.contents[position + 1]
    }

    /// Guesses up to `most` tokens of those still wanted, some of them wrong.
    fn guess(&mut self, most: usize, rng: &mut ChaCha8Rng) -> usize {
        let mut content = self.content(self.tokens.len() - 1);
        self.guess.clear();
        for _ in 0..most.min(self.wanted - 1) {
            let token = if rng.random_range(0..4) == 0 { 7 } else { token_after(content) };
            self.guess.push(token);
            content = content_after(content, token);
        }
        self.guess.len()
    }
}

/// What a model keeps for a token that comes after what it keeps for the one before.
fn content_after(content: u64, token: u32) -> u64 {
    (content ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// The token that a model says next.
fn token_after(content: u64) -> u32 {
    (content % 3) as u32
}

impl World {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let limits = Limits { max_batch: rng.random_range(1..12), max_step_tokens: rng.random_range(1..64) };
        let pool = BlockPool::new(rng.random_range(1..24), rng.random_range(1..9));
        let policy = if rng.random() { Policy::Fcfs } else { Policy::ShortestPrompt };
        Self {
            limits,
            cached: rng.random(),
            guesses: rng.random(),
            live: BTreeMap::new(),
            next_id: 0,
            memory: vec![0; pool.total() * pool.block_size()],
            ends: HashMap::new(),
            found: 0,
            scheduler: Scheduler::new(limits, policy, pool),
        }
    }

    /// A request of one of two tenants, whose prompt begins like others' and may go on differently.
    fn arrive(&mut self, rng: &mut ChaCha8Rng) {
        let most = self.scheduler.max_positions();
        if most < 2 {
            return;
        }
        let (salt, length) = (rng.random_range(0..2), rng.random_range(1..most));
        let chain = self.cached.then(|| KeyChain::new(salt, self.scheduler.pool().block_size()));
        let mut live = Live::new(salt, rng.random_range(1..=most - length), chain);
        let (common, own) = (rng.random_range(0..most), rng.random_range(0..3));
        let mut keys = Vec::new();
        for position in 0..length {
            let token = if position < common { position as u32 } else { 1000 + own };
            keys.extend(live.push(token, &mut self.ends));
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.scheduler.submit(id, length, keys);
        self.live.insert(id, live);
    }

    fn disturb(&mut self, rng: &mut ChaCha8Rng) {
        let Some((&id, live)) = self.live.iter_mut().nth(rng.random_range(0..12)) else { return };
        match rng.random_range(0..8) {
            0 => {
                self.live.remove(&id);
                self.scheduler.remove(id);
            }
            1..=3 => {
                live.paused = !live.paused;
                self.scheduler.set_paused(id, live.paused);
            }
            _ => {}
        }
    }

    /// One step; checks every invariant; gives the number of tokens computed.
    fn step(&mut self, rng: &mut ChaCha8Rng) -> usize {
        let before: HashMap<_, _> = self.live.keys().map(|id| (*id, self.scheduler.blocks(*id).is_empty())).collect();
        let guesses = self.guesses;
        let plan = self.scheduler.plan(|id, room| {
            assert!(room > 0);
            let most = if guesses { rng.random_range(0..6) } else { 0 };
            self.live.get_mut(&id).unwrap().guess(most, rng)
        });
        self.check_plan(&plan);
        self.check_blocks();
        self.compute(&plan);
        self.found += plan.chunks.iter().filter(|chunk| before[&chunk.id]).map(|chunk| chunk.start).sum::<usize>();
        for chunk in plan.chunks {
            let sampled = if chunk.samples { self.sample(chunk) } else { Vec::new() };
            let live = self.live.get_mut(&chunk.id).unwrap();
            live.wanted -= sampled.len();
            let keys = sampled.iter().flat_map(|token| live.push(*token, &mut self.ends)).collect();
            self.scheduler.computed(chunk, sampled.len(), keys);
            if self.live[&chunk.id].wanted == 0 {
                self.live.remove(&chunk.id);
                self.scheduler.remove(chunk.id);
            }
        }
        self.check_blocks();
        plan.tokens
    }

    /// What the model says next, as far as what was guessed is what it says.
    fn sample(&self, chunk: Chunk) -> Vec<u32> {
        let live = &self.live[&chunk.id];
        let mut content = live.content(live.tokens.len() - 1);
        let mut sampled = Vec::new();
        for index in 0..=chunk.guessed {
            let token = token_after(content);
            sampled.push(token);
            content = content_after(content, token);
            if index == chunk.guessed || live.guess[index] != token {
                break;
            }
        }
        sampled
    }

    fn check_plan(&self, plan: &Plan) {
        assert_eq!(plan.tokens, plan.chunks.iter().map(|chunk| chunk.tokens + chunk.guessed).sum::<usize>());
        assert!(plan.tokens <= self.limits.max_step_tokens, "the token budget holds");
        assert!(plan.chunks.len() <= self.limits.max_batch, "the batch bound holds");
        let mut ids = HashSet::new();
        for chunk in &plan.chunks {
            let live = &self.live[&chunk.id];
            assert!(ids.insert(chunk.id), "a sequence is planned once");
            assert!(!live.paused, "a paused sequence is not planned");
            assert!(chunk.tokens > 0 && chunk.start + chunk.tokens <= live.tokens.len());
            assert_eq!(chunk.samples, chunk.start + chunk.tokens == live.tokens.len());
            assert!(chunk.guessed == 0 || chunk.samples && chunk.tokens == 1 && chunk.guessed <= live.guess.len());
            assert!(!plan.preempted.contains(&chunk.id), "who lost its blocks is not planned");
        }
    }

    /// Does what a model would do: keeps something for every new position, then reads back all up to it.
    fn compute(&mut self, plan: &Plan) {
        let (holders, _) = self.scheduler.pool().inspect();
        for chunk in &plan.chunks {
            let live = &self.live[&chunk.id];
            let mut content = live.contents[chunk.start];
            let known = live.tokens[chunk.start..chunk.start + chunk.tokens].iter();
            for (position, &token) in (chunk.start..).zip(known.chain(&live.guess[..chunk.guessed])) {
                content = content_after(content, token);
                let slot = self.slot(chunk.id, position);
                assert_eq!(holders[slot / self.scheduler.pool().block_size()], 1, "nobody writes to what is shared");
                self.memory[slot] = content;
            }
        }
        for chunk in &plan.chunks {
            for position in 0..chunk.start + chunk.tokens {
                let expected = self.live[&chunk.id].content(position);
                assert_eq!(self.memory[self.slot(chunk.id, position)], expected, "{chunk:?} at {position}");
            }
        }
    }

    fn slot(&self, id: SequenceId, position: usize) -> usize {
        let size = self.scheduler.pool().block_size();
        self.scheduler.blocks(id)[position / size] as usize * size + position % size
    }

    fn check_blocks(&self) {
        let pool = self.scheduler.pool();
        let (holders, index) = pool.inspect();
        let mut seen = vec![0; pool.total()];
        for block in self.live.keys().flat_map(|id| self.scheduler.blocks(*id)) {
            seen[*block as usize] += 1;
        }
        assert_eq!(seen, holders, "everyone who holds a block is counted, and nobody else");
        assert_eq!(holders.iter().filter(|holders| **holders == 0).count(), pool.free(), "no block is lost");
        for (key, block) in index {
            let end = self.memory[(*block as usize + 1) * pool.block_size() - 1];
            assert_eq!(end, self.ends[key], "block {block} contains what it is found by");
        }
        assert_eq!(index.values().collect::<HashSet<_>>().len(), index.len());
    }
}

/// Tokens found in the cache.
fn run(seed: u64) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::new(&mut rng);
    for _ in 0..rng.random_range(20..200) {
        if rng.random_range(0..3) == 0 {
            world.arrive(&mut rng);
        }
        if rng.next_u32().is_multiple_of(4) {
            world.disturb(&mut rng);
        }
        world.step(&mut rng);
    }
    // Without new arrivals and with every reader awake, all must end.
    for (id, live) in &mut world.live {
        live.paused = false;
        world.scheduler.set_paused(*id, false);
    }
    while !world.live.is_empty() {
        assert!(world.step(&mut rng) > 0, "nothing runs although {} sequences are left", world.live.len());
    }
    assert_eq!(world.scheduler.pool().free(), world.scheduler.pool().total());
    assert!(world.cached || world.found == 0);
    world.found
}

#[test]
fn every_seed_ends_without_leak_or_starvation() {
    let seeds = match std::env::var("SCHEDULER_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..4000).collect(),
    };
    let mut found = 0;
    for seed in &seeds {
        match std::panic::catch_unwind(|| run(*seed)) {
            Ok(tokens) => found += tokens,
            Err(_) => panic!("replay with SCHEDULER_SEED={seed}"),
        }
    }
    assert!(seeds.len() == 1 || found > 10_000, "the cache was of no use: {found}");
}
