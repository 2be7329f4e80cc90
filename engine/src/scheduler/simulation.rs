//! Seeded runs of scheduler and block pool: random arrivals, lengths, pauses, cancellations and failures, prompts that
//! share beginnings, steps one by one or overlapping, and a memory whose every position is checked against what a
//! model would have put there.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod device;

use std::collections::{BTreeMap, HashMap, HashSet};

use device::{Device, Part};

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
    limit: usize,
    paused: bool,
    /// Steps under way that it is in, and tokens that these will give.
    under_way: usize,
    pending: usize,
    /// Tokens guessed to come next: right, or from some place on wrong.
    guess: Vec<u32>,
}

struct World {
    scheduler: Scheduler,
    limits: Limits,
    cached: bool,
    guesses: bool,
    fails: bool,
    /// Steps that may be under way at once.
    depth: usize,
    device: Device,
    live: BTreeMap<SequenceId, Live>,
    next_id: u64,
    /// What lies in the last position of a block with that key.
    ends: HashMap<BlockKey, u64>,
    found: usize,
}

impl Live {
    fn new(salt: u64, limit: usize, chain: Option<KeyChain>) -> Self {
        let (tokens, contents, guess) = (Vec::new(), vec![salt], Vec::new());
        Self { tokens, contents, chain, limit, paused: false, under_way: 0, pending: 0, guess }
    }

    fn wanted(&self) -> usize {
        self.limit - self.tokens.len()
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
        for _ in 0..most.min(self.wanted() - 1) {
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
        let depth = rng.random_range(1..=2);
        Self {
            limits,
            cached: rng.random(),
            guesses: depth == 1 && rng.random(),
            fails: rng.random_range(0..4) == 0,
            depth,
            device: Device::new(pool.total(), pool.block_size()),
            live: BTreeMap::new(),
            next_id: 0,
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
        let mut live = Live::new(salt, rng.random_range(length + 1..=most), chain);
        let (common, own) = (rng.random_range(0..most), rng.random_range(0..3));
        let mut keys = Vec::new();
        for position in 0..length {
            let token = if position < common { position as u32 } else { 1000 + own };
            keys.extend(live.push(token, &mut self.ends));
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.scheduler.submit(id, length, live.limit, keys);
        self.device.begin(id, live.contents.clone());
        self.live.insert(id, live);
    }

    fn disturb(&mut self, rng: &mut ChaCha8Rng) {
        let Some((&id, live)) = self.live.iter_mut().nth(rng.random_range(0..12)) else { return };
        match rng.random_range(0..8) {
            0 => self.remove(id),
            1..=3 => {
                live.paused = !live.paused;
                self.scheduler.set_paused(id, live.paused);
            }
            _ => {}
        }
    }

    /// One turn of a worker: a step is launched if one may be, and the oldest lands if it has to, or by chance.
    /// False if neither came about.
    fn turn(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let launched = self.launch(rng);
        let lands = !launched || self.device.under_way() == self.depth || rng.random_range(0..4) == 0;
        (lands && self.land(rng)) || launched
    }

    /// Plans and launches; false if there is nothing to do.
    fn launch(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let before: HashSet<_> =
            self.live.keys().copied().filter(|id| !self.scheduler.blocks(*id).is_empty()).collect();
        let guesses = self.guesses;
        let plan = self.scheduler.plan(|id, room| {
            assert!(room > 0);
            let most = if guesses { rng.random_range(0..6) } else { 0 };
            self.live.get_mut(&id).unwrap().guess(most, rng)
        });
        self.check_plan(&plan, &before);
        self.check_blocks();
        if plan.chunks.is_empty() {
            return false;
        }
        let admitted = plan.chunks.iter().filter(|chunk| !before.contains(&chunk.id));
        self.found += admitted.map(|chunk| chunk.start).sum::<usize>();
        let step = plan.chunks.iter().map(|chunk| self.part(*chunk)).collect();
        if self.fails && rng.random_range(0..20) == 0 {
            plan.chunks.iter().for_each(|chunk| self.remove(chunk.id));
            return true;
        }
        self.device.launch(step);
        for chunk in &plan.chunks {
            let live = self.live.get_mut(&chunk.id).unwrap();
            live.under_way += 1;
            live.pending += usize::from(chunk.samples);
        }
        true
    }

    /// A chunk as it is launched, with the tokens that are known by now.
    fn part(&self, chunk: Chunk) -> Part {
        let live = &self.live[&chunk.id];
        let known = (chunk.start..chunk.start + chunk.tokens).map(|position| live.tokens.get(position).copied());
        let tokens = known.chain(live.guess[..chunk.guessed].iter().map(|token| Some(*token))).collect();
        let blocks = self.scheduler.blocks(chunk.id).to_vec();
        let (holders, _) = self.scheduler.pool().inspect();
        for position in chunk.start..chunk.start + chunk.tokens + chunk.guessed {
            let block = blocks[position / self.scheduler.pool().block_size()];
            assert_eq!(holders[block as usize], 1, "nobody writes to what is shared");
        }
        Part { chunk, tokens, blocks }
    }

    /// Takes what the oldest step gives; false if none is under way.
    fn land(&mut self, rng: &mut ChaCha8Rng) -> bool {
        if self.device.under_way() == 0 {
            return false;
        }
        if self.fails && rng.random_range(0..20) == 0 {
            self.device.fail().into_iter().for_each(|id| self.remove(id));
            return true;
        }
        for (chunk, drawn) in self.device.land() {
            let Some(live) = self.live.get_mut(&chunk.id) else { continue };
            live.under_way -= 1;
            live.pending -= usize::from(chunk.samples);
            let keys = drawn.iter().flat_map(|token| live.push(*token, &mut self.ends)).collect();
            let ends = live.wanted() == 0 || chunk.samples && rng.random_range(0..40) == 0;
            self.scheduler.landed(chunk, drawn.len(), keys);
            if ends {
                self.remove(chunk.id);
            }
        }
        self.check_blocks();
        true
    }

    fn remove(&mut self, id: SequenceId) {
        self.live.remove(&id);
        self.scheduler.remove(id);
    }

    fn check_plan(&self, plan: &Plan, before: &HashSet<SequenceId>) {
        assert_eq!(plan.tokens, plan.chunks.iter().map(|chunk| chunk.tokens + chunk.guessed).sum::<usize>());
        assert!(plan.tokens <= self.limits.max_step_tokens, "the token budget holds");
        assert!(plan.chunks.len() <= self.limits.max_batch, "the batch bound holds");
        let mut ids = HashSet::new();
        for chunk in &plan.chunks {
            let live = &self.live[&chunk.id];
            let (end, known) = (chunk.start + chunk.tokens, live.tokens.len() + live.pending);
            assert!(ids.insert(chunk.id), "a sequence is planned once");
            assert!(!live.paused, "a paused sequence is not planned");
            assert!(chunk.tokens > 0 && end <= known);
            assert!(end + chunk.guessed < live.limit, "nothing comes after the last token");
            assert_eq!(chunk.samples, end == known);
            assert!(live.pending == 0 || chunk.tokens == 1 && chunk.samples, "a pending token is only gone on from");
            assert!(live.under_way == 0 || before.contains(&chunk.id), "what was lost is known when it is recomputed");
            assert!(chunk.guessed == 0 || chunk.samples && chunk.tokens == 1 && chunk.guessed <= live.guess.len());
            assert!(!plan.preempted.contains(&chunk.id), "who lost its blocks is not planned");
        }
        for id in &plan.preempted {
            let live = &self.live[id];
            assert!(live.tokens.len() + live.pending < live.limit, "who is about to leave loses nothing");
        }
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
            assert_eq!(self.device.end_of(*block), self.ends[key], "block {block} contains what it is found by");
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
        world.turn(&mut rng);
    }
    // Without new arrivals and with every reader awake, all must end.
    for (id, live) in &mut world.live {
        live.paused = false;
        world.scheduler.set_paused(*id, false);
    }
    while !world.live.is_empty() {
        assert!(world.turn(&mut rng), "nothing runs although {} sequences are left", world.live.len());
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
