//! A model that says what can be foretold, step by step if need be, and an engine around it.

use std::sync::{Arc, Condvar, Mutex};

use super::delayed::Delayed;
use crate::{
    Device, Engine, EngineConfig, EngineError, GenerationRequest, ModelConfig, Sampling, StepObserver, StepReport,
    Text,
    handle::ModelInfo,
    kernels::cpu::Threads,
    loader::RopeLayout,
    model::{CpuExecutor, Executor, Model, ModelSizes, SIZES, StepBatch},
    worker::Prepared,
};

const VOCABULARY: usize = 259;
const BLOCK: usize = 4;
/// The letter the scripted model never says, and the prompt it fails on.
const POISON: u32 = 3 + b'!' as u32;
/// What follows it is no number.
const NOT_A_NUMBER: u32 = 3 + b'?' as u32;
/// What follows it is the end of the sequence.
const LAST: u32 = 3 + b'.' as u32;
/// A sequence that begins with it may go on in any way.
const UNSURE: u32 = 3 + b'~' as u32;

/// Keeps token ids where keys and values would be; the next token is a hash of what it reads back through
/// the block tables, so a row computed from the wrong blocks says something else.
pub(super) struct Scripted {
    memory: Vec<u32>,
    gate: Arc<Gate>,
}

/// Lets steps through one by one once it is closed.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    permits: usize,
    steps: usize,
    rows: usize,
}

impl Gate {
    fn pass(&self, rows: usize) {
        let mut state = self.changed.wait_while(self.state.lock().unwrap(), |s| s.closed && s.permits == 0).unwrap();
        state.permits = state.permits.saturating_sub(1);
        state.steps += 1;
        state.rows += rows;
        self.changed.notify_all();
    }

    pub(super) fn set(&self, closed: bool, permits: usize) {
        let mut state = self.state.lock().unwrap();
        (state.closed, state.permits) = (closed, permits);
        self.changed.notify_all();
    }

    pub(super) fn wait_for_steps(&self, steps: usize) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.steps < steps).unwrap());
    }

    /// Rows computed so far.
    pub(super) fn rows(&self) -> usize {
        self.state.lock().unwrap().rows
    }
}

impl Model for Scripted {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn sizes(&self) -> ModelSizes {
        SIZES
    }

    fn forward(&mut self, batch: &StepBatch, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.gate.pass(batch.tokens.len());
        if batch.tokens.contains(&POISON) {
            return Err(EngineError::Compute("poisoned".to_owned()));
        }
        for (slot, token) in batch.slots.iter().zip(&batch.tokens) {
            self.memory[*slot as usize] = *token;
        }
        logits.clear();
        for &row in &batch.logit_rows {
            let sequence = batch.sequences.iter().find(|sequence| sequence.rows.contains(&row)).unwrap();
            let blocks = &batch.block_tables[sequence.blocks.clone()];
            let read = |position: usize| self.memory[blocks[position / BLOCK] as usize * BLOCK + position % BLOCK];
            let hash = (0..=batch.positions[row] as usize)
                .fold(7u64, |hash, position| (hash ^ u64::from(read(position))).wrapping_mul(0x0100_0000_01b3));
            logits.extend(match batch.tokens[row] {
                NOT_A_NUMBER => [f32::NAN; VOCABULARY],
                LAST => one(2),
                _ if read(0) == UNSURE => any(hash),
                _ => one(letter(hash)),
            });
        }
        Ok(())
    }
}

fn letter(hash: u64) -> usize {
    3 + b'a' as usize + (hash >> 20) as usize % 26
}

/// The logits of a model that is sure of what it says.
fn one(token: usize) -> [f32; VOCABULARY] {
    std::array::from_fn(|id| if id == token { 50.0 } else { 0.0 })
}

/// Those of one that may say any letter.
fn any(hash: u64) -> [f32; VOCABULARY] {
    let (first, last) = (3 + b'a' as usize, 3 + b'z' as usize);
    std::array::from_fn(|id| match (first..=last).contains(&id) {
        true => 20.0 + (hash >> (id % 40) & 7) as f32 / 4.0,
        false => 0.0,
    })
}

pub(super) struct Fixture {
    pub(super) engine: Engine,
    pub(super) gate: Arc<Gate>,
    pub(super) steps: Arc<Mutex<Vec<StepReport>>>,
}

/// An engine that computes one step at a time.
pub(super) fn fixture(blocks: usize, config: EngineConfig) -> Fixture {
    overlapping(1, blocks, config)
}

/// An engine that has up to `depth` steps under way.
pub(super) fn overlapping(depth: usize, blocks: usize, config: EngineConfig) -> Fixture {
    let steps = Arc::<Mutex<Vec<StepReport>>>::default();
    let seen = Arc::clone(&steps);
    let observer = Box::new(move |step: &StepReport| seen.lock().unwrap().push(step.clone()));
    let (engine, gate) = start(depth, blocks, config, observer);
    Fixture { engine, gate, steps }
}

/// An engine around the scripted model, and its gate.
pub(super) fn start(
    depth: usize,
    blocks: usize,
    config: EngineConfig,
    observer: Box<dyn StepObserver>,
) -> (Engine, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let model = Scripted { memory: vec![0; blocks * BLOCK], gate: Arc::clone(&gate) };
    let config = EngineConfig { block_size: BLOCK, ..config };
    let max_context = blocks * BLOCK;
    let sizes = ModelConfig {
        vocab_size: VOCABULARY,
        hidden_size: 1,
        intermediate_size: 1,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_layout: RopeLayout::HalfSplit,
        sliding_window: None,
        max_context,
        tied_embeddings: true,
    };
    let info = ModelInfo {
        name: "scripted".to_owned(),
        config: sizes,
        parameters: 0,
        weight_bytes: 0,
        kv_bytes: 0,
        device: Device::Cpu,
        max_context,
        limits: None,
    };
    let threads = Arc::new(Threads::new(2).unwrap());
    let one_by_one = CpuExecutor::new(Box::new(model), threads);
    let executor: Box<dyn Executor> = match depth {
        1 => Box::new(one_by_one),
        _ => Box::new(Delayed::new(one_by_one, depth)),
    };
    let prepared = Prepared { executor, text: Text::byte_level_for_tests(), blocks, max_context };
    (Engine::start_prepared(prepared, config, info, observer), gate)
}

pub(super) fn request(prompt: &str, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: prompt.bytes().map(|byte| 3 + u32::from(byte)).collect(),
        max_tokens,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        ignore_eos: false,
        logprobs: None,
        cache_salt: 0,
        deadline: None,
        tag: 0,
    }
}
