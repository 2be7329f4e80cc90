//! The same models on a GPU: these need one, or `engine/cuda/emulate` before the command.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod agreement;
mod bench;
mod determinism;
mod failures;
mod goldens;

use std::{path::Path, sync::Arc};

use engine::{
    KvType, Quantization,
    kernels::cuda::Gpu,
    loader::open_weights,
    model::cuda::{Placed, StepLimits},
};

use crate::goldens::{Bench, POSITIONS};

/// Positions per block: as few as the kernels take, so that every sequence has several.
const BLOCK: usize = 8;
/// Rows of a step at most.
const ROWS: usize = 512;

fn gpu() -> Arc<Gpu> {
    Gpu::open().expect("a GPU, or engine/cuda/emulate before the command")
}

/// A model on the GPU with room for `sequences` sequences.
fn open(path: &Path, sequences: usize, quantize: Option<Quantization>, kv_type: KvType) -> Bench {
    let (config, weights) = open_weights(path).unwrap();
    let placed = Placed::new(&gpu(), &config, &weights, quantize, kv_type).unwrap();
    let limits = StepLimits { rows: ROWS, logits: ROWS, sequences, context: POSITIONS, block_size: BLOCK };
    Bench::over(Box::new(placed.scores(limits, sequences * POSITIONS / BLOCK).unwrap()), sequences, BLOCK)
}
