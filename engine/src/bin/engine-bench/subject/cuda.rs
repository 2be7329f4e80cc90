//! The model on a GPU: steps go through the engine's own executor, launched ahead, and tokens are drawn there.

use std::{collections::VecDeque, sync::Arc};

use anyhow::{Context, ensure};
use engine::{
    Quantization, Sampling,
    kernels::cuda::{Element, Gpu, measure_bandwidth, measure_compute},
    loader::open_weights,
    model::{
        Executor, Landed, Logits, ModelSizes,
        cuda::{CacheSize, CudaExecutor, Placed, StepLimits},
    },
};

use super::{
    Limits, Passes, Subject,
    steps::{Step, Steps},
};
use crate::{args::Args, rows::Row};

/// Passes that do not count: in the first, steps are recorded; the others let the clocks rise.
const WARM_UPS: usize = 3;

/// The model, and the GPU that computes it.
pub(super) struct CudaSubject {
    gpu: Arc<Gpu>,
    executor: CudaExecutor,
    element: Element,
    fp8: bool,
    steps: Steps,
    step_tokens: usize,
}

impl CudaSubject {
    /// Places the weights and fills the cache.
    pub(super) fn open(args: &Args, rows: &[Row], step_tokens: usize, gpu: &Arc<Gpu>) -> anyhow::Result<Self> {
        let (config, weights) = open_weights(&args.model)?;
        let steps = Steps::new(&config, rows)?;
        let placed = Placed::new(gpu, &config, &weights, args.quantize(), args.engine_kv_type()?)?;
        let element = placed.element();
        let limits = StepLimits {
            rows: step_tokens.max(steps.sequences),
            logits: steps.sequences,
            sequences: steps.sequences,
            context: steps.positions,
            block_size: steps.block_size,
        };
        let bytes = steps.blocks() * placed.kv_shape(steps.block_size).block_bytes();
        let size = CacheSize { bytes: Some(bytes), utilization: 1.0, most: steps.blocks() };
        let (mut executor, _) = placed.executor(limits, size)?;
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        (0..steps.sequences).try_for_each(|slot| executor.begin(slot, greedy.clone(), None, &[]))?;
        let fp8 = args.quantize() == Some(Quantization::Fp8);
        let mut subject = Self { gpu: Arc::clone(gpu), executor, element, fp8, steps, step_tokens };
        subject.fill().context("cannot fill the cache")?;
        Ok(subject)
    }

    /// Computes every sequence's prompt once, which takes a GPU seconds: so the cache holds what a cache holds, and not
    /// zeros, which cost a GPU less power.
    fn fill(&mut self) -> anyhow::Result<()> {
        let (sequences, prompt, most) = (self.steps.sequences, self.steps.positions - 1, self.step_tokens);
        let step = move |sequence, start: usize| Step {
            sequences: sequence..sequence + 1,
            positions: start..(start + most).min(prompt),
            prompt,
            logits: Logits::None,
        };
        let all = (0..sequences).flat_map(|sequence| (0..prompt).step_by(most).map(move |at| step(sequence, at)));
        self.run(all).map(drop)
    }

    /// Computes steps, each launched while the one before is under way, as the engine does.
    fn run(&mut self, steps: impl Iterator<Item = Step>) -> anyhow::Result<Vec<Landed>> {
        let (mut all, mut due) = (Vec::new(), VecDeque::new());
        for step in steps {
            if due.len() == self.executor.depth() {
                all.push(self.land(&mut due)?);
            }
            due.push_back(if step.logits == Logits::None { 0 } else { step.sequences.len() });
            self.executor.launch(self.steps.lay_out(step)).context("a step failed")?;
        }
        while !due.is_empty() {
            all.push(self.land(&mut due)?);
        }
        Ok(all)
    }

    /// Waits for the oldest step, which is to draw as many tokens as are due first.
    fn land(&mut self, due: &mut VecDeque<usize>) -> anyhow::Result<Landed> {
        let landed = self.executor.land().context("a step failed")?;
        let drawn = landed.drawn.iter().filter(|tokens| !tokens.is_empty()).count();
        let due = due.pop_front().unwrap_or(0);
        ensure!(drawn == due, "{drawn} of {due} sequences drew a token: the model's logits are not finite");
        Ok(landed)
    }
}

impl Subject for CudaSubject {
    fn sizes(&self) -> ModelSizes {
        self.executor.sizes()
    }

    fn limits(&self) -> anyhow::Result<Limits> {
        let bandwidth = measure_bandwidth(&self.gpu).context("cannot measure memory bandwidth")?;
        // Where there are no products of 8-bit numbers, prompts are computed with the weights widened.
        let compute = measure_compute(&self.gpu, self.element, self.fp8)?;
        Ok(Limits {
            bandwidth,
            compute: compute.map(|limit| limit.operations_per_second),
            operands: compute.map_or(self.element.suffix(), |limit| limit.operands),
        })
    }

    fn passes(&mut self, row: Row, count: u32) -> anyhow::Result<Passes> {
        let pass = Step::of(row, self.step_tokens);
        let all = std::iter::repeat_n(pass.clone(), WARM_UPS + count as usize).flatten();
        let landed = self.run(all)?;
        let (before, measured) = landed.split_at(WARM_UPS * pass.len());
        let seconds: Vec<f64> = measured.chunks(pass.len()).map(device_seconds).collect();
        let host_overhead = before.last().zip(measured.last()).map(|(first, last)| {
            let wall = (last.computed - first.computed).as_secs_f64();
            // The two clocks differ by a little.
            (1.0 - seconds.iter().sum::<f64>() / wall).max(0.0)
        });
        Ok(Passes { seconds, host_overhead })
    }
}

/// How long the device computed a pass.
fn device_seconds(steps: &[Landed]) -> f64 {
    steps.iter().filter_map(|step| step.device).map(|time| time.as_secs_f64()).sum()
}
