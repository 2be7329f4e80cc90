//! Models of `goldens/`, made by `make_goldens.py`: same greedy tokens and logprobs as `transformers`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{fs, path::PathBuf, sync::Arc};

use engine::{
    kernels::cpu::Threads,
    loader::open_weights,
    model::{Logits, Model, StepBatch, mistral::Placed},
};
use serde::Deserialize;

/// Positions per block: small, so that every sequence has several.
const BLOCK: usize = 4;
/// Positions of a sequence.
pub(crate) const POSITIONS: usize = 128;

/// Of each answer's position, some ids and their logprobs.
pub(crate) type Logprobs = Vec<Vec<(u32, f32)>>;

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) prompt: Vec<u32>,
    pub(crate) greedy: Vec<u32>,
    logprobs: Logprobs,
    /// The same ids, same weights, computed in single precision.
    #[serde(default)]
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a GPU's rounding is compared with it"))]
    logprobs_f32: Logprobs,
}

impl Prompt {
    /// What `transformers` computes in single precision from the same weights: of models in single precision all it
    /// has.
    #[cfg(feature = "cuda")]
    pub(crate) fn exact(&self) -> &Logprobs {
        if self.logprobs_f32.is_empty() { &self.logprobs } else { &self.logprobs_f32 }
    }
}

pub(crate) fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(case)
}

pub(crate) fn golden(case: &str) -> Golden {
    serde_json::from_slice(&fs::read(folder(case).join("golden.json")).unwrap()).unwrap()
}

/// A model with its cache, and the blocks of each of its sequences. What is computed first of a sequence is its prompt.
pub(crate) struct Bench {
    model: Box<dyn Model>,
    tables: Vec<Vec<u32>>,
    computed: Vec<usize>,
    prompts: Vec<usize>,
    block: usize,
}

impl Bench {
    /// Room for `sequences` sequences, their blocks interleaved and out of order.
    pub(crate) fn open(path: &std::path::Path, sequences: usize) -> Self {
        let (config, weights) = open_weights(path).unwrap();
        Self::of(
            Placed::new(&config, &weights, None, Arc::new(Threads::of_this_machine().unwrap())).unwrap(),
            sequences,
        )
    }

    /// The same with a model that is placed already.
    pub(crate) fn of(placed: Placed, sequences: usize) -> Self {
        Self::over(Box::new(placed.with_cache(BLOCK, sequences * POSITIONS / BLOCK).unwrap()), sequences, BLOCK)
    }

    /// The same with a model that has a cache for as many, of blocks of `block` positions.
    pub(crate) fn over(model: Box<dyn Model>, sequences: usize, block: usize) -> Self {
        let each = POSITIONS / block;
        let tables = (0..sequences)
            .map(|index| (0..each).rev().map(|block| (block * sequences + index) as u32).collect())
            .collect();
        Self { model, tables, computed: vec![0; sequences], prompts: vec![0; sequences], block }
    }

    /// The sequences' prompts are so long, however they are computed.
    #[cfg(feature = "cuda")]
    pub(crate) fn set_prompts(&mut self, tokens: impl Iterator<Item = usize>) {
        self.prompts = tokens.collect();
    }

    /// Tokens of a sequence that were computed.
    #[cfg(feature = "cuda")]
    pub(crate) fn computed(&self, sequence: usize) -> usize {
        self.computed[sequence]
    }

    /// Computes one step over (sequence, new tokens); the logits of every row.
    pub(crate) fn step(&mut self, parts: &[(usize, &[u32])]) -> Vec<Vec<f32>> {
        let mut batch = StepBatch::default();
        for &(sequence, tokens) in parts {
            if self.prompts[sequence] == 0 {
                self.prompts[sequence] = tokens.len();
            }
            let table = &self.tables[sequence];
            batch.push(tokens, self.computed[sequence], table, self.block, Logits::All).prompt = self.prompts[sequence];
            self.computed[sequence] += tokens.len();
        }
        let mut logits = Vec::new();
        self.model.forward(&batch, &mut logits).unwrap();
        logits.chunks(self.model.vocabulary()).map(<[f32]>::to_vec).collect()
    }
}

pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - best).exp()).sum();
    logits.iter().map(|logit| logit - best - total.ln()).collect()
}

pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == best).unwrap() as u32
}

fn check(case: &str, tolerance: f32) {
    check_with(case, tolerance, |prompt| &prompt.logprobs, || Bench::open(&folder(case), 1));
}

/// Greedy tokens equal, logprobs within `tolerance` of the reference.
pub(crate) fn check_with(case: &str, tolerance: f32, reference: fn(&Prompt) -> &Logprobs, open: impl Fn() -> Bench) {
    let golden = golden(case);
    let mut worst = 0f32;
    for (index, prompt) in golden.prompts.iter().enumerate() {
        let mut bench = open();
        let mut logits = bench.step(&[(0, &prompt.prompt)]).pop().unwrap();
        for (position, &expected) in prompt.greedy.iter().enumerate() {
            let logprobs = log_softmax(&logits);
            for (id, logprob) in reference(prompt).get(position).into_iter().flatten() {
                worst = worst.max((logprobs[*id as usize] - logprob).abs());
            }
            assert_eq!(argmax(&logits), expected, "{case}: prompt {index}, token {position}");
            logits = bench.step(&[(0, &[expected])]).pop().unwrap();
        }
    }
    assert!(worst <= tolerance, "{case}: a logprob is off by {worst}");
}

#[test]
fn single_precision_grouped_queries() {
    check("plain_gqa", 1e-3);
}

#[test]
fn a_window_shorter_than_the_prompt() {
    check("sliding_window", 1e-3);
}

#[test]
fn heads_wider_than_the_hidden_size_in_shards() {
    check("head_dim_sharded", 1e-3);
}

#[test]
fn tied_embeddings_in_bf16() {
    check("tied_bf16", 2e-2);
}

#[test]
fn the_vocabulary_and_rope_theta_of_v03_in_bf16() {
    check("vocab_v03", 2e-2);
}

#[test]
fn half_precision() {
    check("k_quant_f16", 2e-2);
}

/// Every row of a ragged batch, in chunks of any size, has the bits it has alone.
#[test]
fn a_ragged_batch_gives_each_row_what_it_gets_alone() {
    for case in ["plain_gqa", "sliding_window", "tied_bf16", "k_quant_f16"] {
        let prompts: Vec<Vec<u32>> = golden(case)
            .prompts
            .iter()
            .flat_map(|prompt| [prompt.prompt.clone(), prompt.greedy.clone(), prompt.prompt[..1].to_vec()])
            .collect();
        let alone: Vec<_> = prompts.iter().map(|prompt| Bench::open(&folder(case), 1).step(&[(0, prompt)])).collect();
        for chunk in [1, 3, 7, 64] {
            let mut bench = Bench::open(&folder(case), prompts.len());
            let mut together = vec![Vec::new(); prompts.len()];
            for start in (0..64).step_by(chunk) {
                let parts: Vec<(usize, &[u32])> = prompts
                    .iter()
                    .enumerate()
                    .filter(|(_, prompt)| start < prompt.len())
                    .map(|(index, prompt)| (index, &prompt[start..prompt.len().min(start + chunk)]))
                    .collect();
                if parts.is_empty() {
                    break;
                }
                let mut rows = bench.step(&parts).into_iter();
                for (index, tokens) in parts {
                    together[index].extend(rows.by_ref().take(tokens.len()));
                }
            }
            assert!(together == alone, "{case}: chunks of {chunk} differ");
        }
    }
}

/// The GGUF of the same weights, with its rotary pairs side by side, gives the same answers.
#[test]
fn a_gguf_agrees_with_the_folder_it_was_made_from() {
    let path = folder("plain_gqa");
    for prompt in golden("plain_gqa").prompts {
        let from_folder = Bench::open(&path, 1).step(&[(0, &prompt.prompt)]);
        let from_gguf = Bench::open(&path.join("gguf_f16.gguf"), 1).step(&[(0, &prompt.prompt)]);
        for (a, b) in from_folder.iter().zip(&from_gguf) {
            let (a, b) = (log_softmax(a), log_softmax(b));
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-2, "f16 weights are off by {worst}");
        }
    }
}
