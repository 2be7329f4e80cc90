//! Seeded runs of scheduler and block pool with random arrivals, lengths, pauses and cancellations.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::{BTreeMap, HashSet};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Limits, Scheduler, SequenceId};
use crate::kv::BlockPool;

struct Live {
    known: usize,
    wanted: usize,
    paused: bool,
}

struct World {
    scheduler: Scheduler,
    limits: Limits,
    live: BTreeMap<SequenceId, Live>,
    next_id: u64,
}

impl World {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let limits = Limits { max_batch: rng.random_range(1..12), max_step_tokens: rng.random_range(1..64) };
        let pool = BlockPool::new(rng.random_range(1..24), rng.random_range(1..9));
        Self { scheduler: Scheduler::new(limits, pool), limits, live: BTreeMap::new(), next_id: 0 }
    }

    fn arrive(&mut self, rng: &mut ChaCha8Rng) {
        let most = self.scheduler.max_positions();
        if most < 2 {
            return;
        }
        let known = rng.random_range(1..most);
        let wanted = rng.random_range(1..=most - known);
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.scheduler.submit(id, known);
        self.live.insert(id, Live { known, wanted, paused: false });
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
    fn step(&mut self) -> usize {
        let plan = self.scheduler.plan();
        let tokens = plan.chunks.iter().map(|chunk| chunk.tokens).sum::<usize>();
        assert!(tokens <= self.limits.max_step_tokens, "the token budget holds");
        assert!(plan.chunks.len() <= self.limits.max_batch, "the batch bound holds");
        let mut ids = HashSet::new();
        for chunk in &plan.chunks {
            let live = &self.live[&chunk.id];
            assert!(ids.insert(chunk.id), "a sequence is planned once");
            assert!(!live.paused, "a paused sequence is not planned");
            assert!(chunk.tokens > 0 && chunk.start + chunk.tokens <= live.known);
            assert_eq!(chunk.samples, chunk.start + chunk.tokens == live.known);
            let held = self.scheduler.blocks(chunk.id).len() * self.scheduler.pool().block_size();
            assert!(held >= chunk.start + chunk.tokens, "there are blocks for what is computed");
        }
        self.check_blocks();
        for chunk in plan.chunks {
            self.scheduler.computed(chunk, usize::from(chunk.samples));
            if chunk.samples {
                let live = self.live.get_mut(&chunk.id).unwrap();
                live.known += 1;
                live.wanted -= 1;
                if live.wanted == 0 {
                    self.live.remove(&chunk.id);
                    self.scheduler.remove(chunk.id);
                }
            }
        }
        self.check_blocks();
        tokens
    }

    fn check_blocks(&self) {
        let mut seen = HashSet::new();
        for id in self.live.keys() {
            for block in self.scheduler.blocks(*id) {
                assert!(seen.insert(*block), "block {block} is held twice");
            }
        }
        assert_eq!(seen.len() + self.scheduler.pool().free(), self.scheduler.pool().total(), "no block is lost");
    }
}

fn run(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::new(&mut rng);
    for _ in 0..rng.random_range(20..200) {
        if rng.random_range(0..3) == 0 {
            world.arrive(&mut rng);
        }
        if rng.next_u32().is_multiple_of(4) {
            world.disturb(&mut rng);
        }
        world.step();
    }
    // Without new arrivals and with every reader awake, all must end.
    for (id, live) in &mut world.live {
        live.paused = false;
        world.scheduler.set_paused(*id, false);
    }
    while !world.live.is_empty() {
        assert!(world.step() > 0, "nothing runs although {} sequences are left", world.live.len());
    }
    assert_eq!(world.scheduler.pool().free(), world.scheduler.pool().total());
}

#[test]
fn every_seed_ends_without_leak_or_starvation() {
    let seeds = match std::env::var("SCHEDULER_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..3000).collect(),
    };
    for seed in seeds {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("replay with SCHEDULER_SEED={seed}");
        }
    }
}
