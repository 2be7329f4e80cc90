//! The decode rows once more, through the whole engine: planning, sampling, detokenising and sending included.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use engine::{
    Device, Engine, EngineConfig, Event, Generation, GenerationRequest, Sampling, StepReport, load, loader::LoadOptions,
};
use tokio::{runtime, task::JoinSet};

use crate::{
    args::Args,
    measure::median,
    rows::{Mode, Row},
};

/// Tokens beyond one per measured step: the prompt's own, and those of the steps at either end.
const MORE_TOKENS: usize = 3;

/// One decode row through the whole engine.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) row: Row,
    pub(crate) tokens_per_s: f64,
    /// The share of a step's time in which the model is not computed.
    pub(crate) overhead: f64,
}

/// The engine that has room for every batch.
pub(crate) fn config(args: &Args, device: &Device) -> anyhow::Result<EngineConfig> {
    let largest = args.batch.iter().max().map_or(1, |&batch| batch as usize);
    Ok(EngineConfig {
        max_batch: largest,
        max_queue: largest,
        // Prompts have to find room beside as many decodes.
        max_step_tokens: Some(args.step_tokens(device).max(2 * largest)),
        threads: args.threads().try_into().ok(),
        kv_type: args.engine_kv_type()?,
        ..EngineConfig::default()
    })
}

/// Measures every batch at the first prompt length.
pub(crate) fn measure(args: &Args, config: EngineConfig) -> anyhow::Result<Vec<Whole>> {
    eprintln!("starting the engine");
    let options = LoadOptions { quantize: args.quantize(), device: args.device() };
    let (observer, reports) = channel();
    let observer = Box::new(move |report: &StepReport| {
        let _ = observer.send(report.clone());
    });
    let step_tokens = config.step_tokens();
    let engine = Engine::start(load(&args.model, options)?, config, observer)?;
    let runtime = runtime::Builder::new_current_thread().build()?;
    let mut all = Vec::new();
    for &batch in &args.batch {
        let row = Row { mode: Mode::Decode, batch: batch as usize, prompt: args.prompt[0] as usize };
        eprintln!("the whole engine: batch {}, prompt {}", row.batch, row.prompt);
        // The first to decode wait for the last one's prompt to be computed beside them.
        let waiting = (row.batch * row.prompt).div_ceil(step_tokens - row.batch);
        runtime.block_on(generate(&engine, row, args.steps as usize + MORE_TOKENS + waiting))?;
        all.push(figures(row, &reports)?);
    }
    engine.shutdown();
    Ok(all)
}

/// Runs the row's sequences together, each for `max_tokens` tokens.
async fn generate(engine: &Engine, row: Row, max_tokens: usize) -> anyhow::Result<()> {
    let vocabulary = engine.model().config.vocab_size;
    let mut readers = JoinSet::new();
    for sequence in 0..row.batch {
        let token = |index: usize| ((sequence * row.prompt + index).wrapping_mul(2_654_435_761) % vocabulary) as u32;
        readers.spawn(read(engine.submit(GenerationRequest {
            prompt: (0..row.prompt).map(token).collect(),
            max_tokens: max_tokens as u32,
            sampling: Sampling { seed: sequence as u64, ..Sampling::default() },
            stop: Vec::new(),
            ignore_eos: true,
            logprobs: None,
            cache_salt: 0,
            deadline: None,
            tag: 0,
        })?));
    }
    while let Some(read) = readers.join_next().await {
        read.context("a reader failed")??;
    }
    Ok(())
}

/// Takes the events as a client would.
async fn read(mut generation: Generation) -> anyhow::Result<()> {
    while let Some(event) = generation.next().await {
        match event {
            Event::Token(_) => {}
            Event::Finished(_) => return Ok(()),
            Event::Failed(failure) => bail!("a generation failed: {failure}"),
        }
    }
    bail!("the engine stopped")
}

/// From the steps in which all sequences decoded and nothing else was computed.
fn figures(row: Row, reports: &Receiver<StepReport>) -> anyhow::Result<Whole> {
    let steps: Vec<StepReport> =
        reports.try_iter().filter(|step| step.prefill_tokens == 0 && step.decode_tokens == row.batch).collect();
    // Where steps overlap, one is planned when the step before the last is done: what passes until the next is planned
    // is the last one's time, and until the second, what came before all of them.
    let behind = usize::from(steps.iter().any(|step| step.device.is_some()));
    ensure!(
        steps.len() >= 2 + behind,
        "{} sequences of {} tokens never decoded together: the KV cache or the model's context is too small",
        row.batch,
        row.prompt
    );
    // From one step's beginning to the next one's: what lies between steps is part of the overhead.
    let began = |step: &StepReport| step.start.started;
    let times: Vec<Duration> = steps[behind..].windows(2).map(|pair| began(&pair[1]) - began(&pair[0])).collect();
    let computing: Duration = steps[..times.len()].iter().map(StepReport::computing).sum();
    let total: Duration = times.iter().sum();
    Ok(Whole {
        row,
        tokens_per_s: row.batch as f64 / median(times.iter().map(Duration::as_secs_f64)),
        // The device's clock and the host's differ by a little.
        overhead: (1.0 - computing.as_secs_f64() / total.as_secs_f64()).max(0.0),
    })
}
