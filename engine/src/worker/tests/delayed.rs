//! An executor whose steps overlap: a thread computes them in the order of their launch, and nobody knows what came of
//! one before it landed. What the worker hands over is checked.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::mpsc,
    thread,
    time::Instant,
};

use crate::{
    EngineError, Sampling,
    model::{CpuExecutor, Executor, Landed, ModelSizes, PENDING, SIZES, StepBatch},
};

/// The prompt that cannot begin, and the one that cannot be launched.
const NO_BEGIN: u32 = 3 + b'&' as u32;
const NO_LAUNCH: u32 = 3 + b'%' as u32;

pub(super) struct Delayed {
    depth: usize,
    orders: mpsc::Sender<Order>,
    results: mpsc::Receiver<Result<Landed, EngineError>>,
    /// For each step under way the slots whose next token it draws.
    under_way: VecDeque<HashSet<usize>>,
    /// The slots in use, with the lengths of their prompts.
    prompts: HashMap<usize, usize>,
}

enum Order {
    Begin(usize, Sampling, Option<u8>, Vec<u32>),
    End(usize),
    Step(StepBatch),
}

impl Delayed {
    pub(super) fn new(inner: CpuExecutor, depth: usize) -> Self {
        let (orders, inbox) = mpsc::channel();
        let (outbox, results) = mpsc::channel();
        thread::spawn(move || compute(inner, &inbox, &outbox));
        Self { depth, orders, results, under_way: VecDeque::new(), prompts: HashMap::new() }
    }

    /// The slots that a step draws for.
    fn check(&self, batch: &StepBatch) -> HashSet<usize> {
        let mut drawing = HashSet::new();
        for (sequence, wanted) in batch.sequences.iter().zip(batch.wanted()) {
            assert_eq!(self.prompts.get(&sequence.slot), Some(&sequence.prompt), "it has begun and has not ended");
            let tokens = &batch.tokens[sequence.rows.clone()];
            let is_pending = tokens.first() == Some(&PENDING);
            let is_drawn = self.under_way.back().is_some_and(|before| before.contains(&sequence.slot));
            assert_eq!(is_pending, is_drawn, "nobody knows a token that is not drawn");
            assert!(
                !is_pending || tokens.len() == 1 && batch.positions[sequence.rows.start] as usize >= sequence.prompt
            );
            assert!(!tokens[1..].contains(&PENDING));
            assert!(wanted.len() <= 1 || self.under_way.is_empty(), "a guess goes on from what is known");
            if !wanted.is_empty() {
                assert!(drawing.insert(sequence.slot), "nobody is in a step twice");
            }
        }
        drawing
    }
}

impl Executor for Delayed {
    fn sizes(&self) -> ModelSizes {
        SIZES
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn begin(
        &mut self,
        slot: usize,
        sampling: Sampling,
        logprobs: Option<u8>,
        prompt: &[u32],
    ) -> Result<(), EngineError> {
        if prompt.contains(&NO_BEGIN) {
            return Err(EngineError::Compute("cannot begin".to_owned()));
        }
        assert_eq!(self.prompts.insert(slot, prompt.len()), None, "a slot is one sequence's");
        for step in &mut self.under_way {
            step.remove(&slot);
        }
        self.orders.send(Order::Begin(slot, sampling, logprobs, prompt.to_vec())).unwrap();
        Ok(())
    }

    fn end(&mut self, slot: usize) {
        self.prompts.remove(&slot).unwrap();
        self.orders.send(Order::End(slot)).unwrap();
    }

    fn launch(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        assert!(self.under_way.len() < self.depth);
        let drawing = self.check(batch);
        if batch.tokens.contains(&NO_LAUNCH) {
            return Err(EngineError::Compute("cannot launch".to_owned()));
        }
        self.under_way.push_back(drawing);
        self.orders.send(Order::Step(batch.clone())).unwrap();
        Ok(())
    }

    fn land(&mut self) -> Result<Landed, EngineError> {
        self.under_way.pop_front().unwrap();
        let landed = self.results.recv().unwrap();
        let now = Instant::now();
        Ok(Landed { computed: now, sampled: now, ..landed? })
    }
}

/// The device: obeys until nobody gives orders any more.
fn compute(
    mut inner: CpuExecutor,
    orders: &mpsc::Receiver<Order>,
    results: &mpsc::Sender<Result<Landed, EngineError>>,
) {
    let mut drawn: HashMap<usize, u32> = HashMap::new();
    for order in orders {
        match order {
            Order::Begin(slot, sampling, logprobs, prompt) => {
                drawn.remove(&slot);
                inner.begin(slot, sampling, logprobs, &prompt).unwrap();
            }
            Order::End(slot) => inner.end(slot),
            Order::Step(mut batch) => {
                for sequence in &batch.sequences {
                    let token = &mut batch.tokens[sequence.rows.start];
                    if *token == PENDING {
                        *token = drawn.get(&sequence.slot).copied().unwrap_or_default();
                    }
                }
                let started = Instant::now();
                let landed = inner.launch(&batch).and_then(|()| inner.land());
                for (sequence, tokens) in batch.sequences.iter().zip(landed.iter().flat_map(|landed| &landed.drawn)) {
                    drawn.extend(tokens.last().map(|token| (sequence.slot, token.id)));
                }
                let landed = landed.map(|landed| Landed { device: Some(started.elapsed()), ..landed });
                if results.send(landed).is_err() {
                    return;
                }
            }
        }
    }
}
