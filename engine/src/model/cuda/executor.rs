//! Steps on the GPU: launched without waiting for the one before, which the device computes meanwhile.
//!
//! A step is one copy to the device, its kernels, and one copy back. The kernels of a step of answers alone are
//! recorded once per batch size and context, both rounded up, and started as one graph from then on.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Instant,
};

use super::{
    forward::CudaMistral,
    slots::Slots,
    step::{Capacity, Padding, StepArrays, StepShape},
};
use crate::{
    error::EngineError,
    generation::Sampling,
    kernels::cuda::{CudaError, Drawn, Event, Gpu, Graph, NO_TOKEN, Pinned, SPLIT, SampleKernels},
    model::{Executor, Landed, ModelSizes, StepBatch},
    sampling::Sampled,
};

/// Steps that may be under way: one computes, the next waits behind it.
const DEPTH: usize = 2;
/// The most answers of a step that is recorded: what the decode kernels take at once.
pub(super) const RECORDED_ROWS: usize = 64;

/// The batch sizes that are recorded: few, so that recordings are few, and near each other where padding costs most.
const BATCHES: [usize; 14] = [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, RECORDED_ROWS];
/// Contexts for which steps are recorded before anyone has one.
const USUAL_CONTEXT: usize = 4096;

/// Mistral on a GPU.
#[derive(Debug)]
pub struct CudaExecutor {
    gpu: Arc<Gpu>,
    model: CudaMistral,
    sizes: ModelSizes,
    arrays: StepArrays,
    slots: Slots,
    kernels: SampleKernels,
    drawn: Drawn,
    graphs: HashMap<Recording, Graph>,
    /// Those of no step under way.
    spare: Vec<Exchange>,
    under_way: VecDeque<UnderWay>,
    /// Which row of logits each slot's newest token is drawn from.
    pending: HashMap<usize, usize>,
}

/// What decides about a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Recording {
    rows: usize,
    splits: usize,
}

/// Memory of the host for a step's way to the device and back, and when it began and ended there.
#[derive(Debug)]
struct Exchange {
    to: Pinned<i32>,
    from: Pinned<i32>,
    begun: Event,
    done: Event,
}

/// A step that was launched.
#[derive(Debug)]
struct UnderWay {
    exchange: Exchange,
    /// What is due of each sequence.
    sequences: Vec<Due>,
}

/// A sequence's draws.
#[derive(Debug)]
struct Due {
    slot: usize,
    /// Its rows of logits.
    rows: Range<usize>,
}

impl CudaExecutor {
    /// An executor for steps of at most this size.
    pub(super) fn new(model: CudaMistral, capacity: Capacity) -> Result<Self, EngineError> {
        let gpu = Arc::clone(model.placed().gpu());
        let vocabulary = model.placed().config.vocab_size;
        let spare = (0..DEPTH).map(|_| Exchange::new(&gpu, capacity)).collect::<Result<_, EngineError>>()?;
        Ok(Self {
            sizes: model.placed().sizes(),
            arrays: StepArrays::new(&gpu, capacity)?,
            slots: Slots::new(&gpu, vocabulary, capacity.sequences)?,
            kernels: SampleKernels::new(&gpu, vocabulary)?,
            drawn: Drawn::new(&gpu, capacity.logits)?,
            graphs: HashMap::new(),
            spare,
            under_way: VecDeque::new(),
            pending: HashMap::new(),
            model,
            gpu,
        })
    }

    fn start(&mut self, batch: &StepBatch, exchange: &mut Exchange, due: &[Due]) -> Result<(), EngineError> {
        let padding = Padding {
            rows: padded(batch.tokens.len()).filter(|_| batch.logit_rows.len() == batch.tokens.len()).unwrap_or(0),
            block: self.model.cache.spare_block(),
            block_size: self.model.cache.block_size(),
        };
        let (shape, numbers) = self.arrays.fill(&mut exchange.to, batch, &self.pending, padding);
        self.wish(batch, exchange, due, shape);
        exchange.begun.record()?;
        self.arrays.start_copy(&exchange.to, numbers)?;
        self.compute(shape, due.len())?;
        self.drawn.start_copy(&mut exchange.from)?;
        Ok(exchange.done.record()?)
    }

    /// Writes what each sequence wants of its rows of logits.
    fn wish(&mut self, batch: &StepBatch, exchange: &mut Exchange, due: &[Due], shape: StepShape) {
        let mut wishes = self.arrays.wishes(&mut exchange.to);
        for (index, Due { slot, rows }) in due.iter().enumerate() {
            let Some(slot) = self.slots.get(*slot).filter(|_| !rows.is_empty()) else {
                wishes.nothing(index);
                continue;
            };
            wishes.sequence(index, slot.wishes(rows));
            for (row, share) in rows.clone().zip(slot.shares(rows.len())) {
                // A guess is the token of the row that follows.
                let guess = (row + 1 < rows.end).then(|| batch.tokens[batch.logit_rows[row] + 1]);
                wishes.row(row, share, guess);
            }
        }
        (due.len()..shape.logits).for_each(|index| wishes.nothing(index));
    }

    /// Starts the kernels, by the recording that fits, or one by one.
    fn compute(&mut self, shape: StepShape, sequences: usize) -> Result<(), EngineError> {
        let recordable = shape.prompts == 0 && shape.logits == shape.answers && shape.answers <= RECORDED_ROWS;
        if !recordable {
            return self.kernels_of(shape, sequences);
        }
        let recording =
            Recording { rows: shape.answers, splits: shape.answer_context.div_ceil(SPLIT).next_power_of_two() };
        match self.record(recording) {
            // The kernels can do without.
            Err(EngineError::Cuda(CudaError::OutOfMemory { .. })) => self.kernels_of(shape, sequences),
            recorded => Ok(recorded?.launch()?),
        }
    }

    fn record(&mut self, recording: Recording) -> Result<&Graph, EngineError> {
        if !self.graphs.contains_key(&recording) {
            let Recording { rows, splits } = recording;
            let shape =
                StepShape { answers: rows, logits: rows, answer_context: splits * SPLIT, ..StepShape::default() };
            let graph = Graph::record(&self.gpu, || self.kernels_of(shape, rows))?;
            self.graphs.insert(recording, graph);
        }
        Ok(&self.graphs[&recording])
    }

    /// Records steps of up to `batch` answers in contexts of usual lengths, so that nobody's answer waits for it; those
    /// of longer contexts are recorded when they come.
    pub fn record_usual(&mut self, batch: usize, context: usize) -> Result<(), EngineError> {
        self.gpu.bind()?;
        let most = context.min(USUAL_CONTEXT).div_ceil(SPLIT).next_power_of_two();
        for rows in BATCHES.into_iter().take_while(|&rows| padded(batch.min(RECORDED_ROWS)) >= Some(rows)) {
            let mut splits = 1;
            while splits <= most {
                self.record(Recording { rows, splits })?;
                splits *= 2;
            }
        }
        Ok(())
    }

    fn kernels_of(&self, shape: StepShape, sequences: usize) -> Result<(), EngineError> {
        self.model.forward(&self.arrays, shape, &self.drawn.numbers)?;
        let (logits, wishes) = (self.model.logits(), self.arrays.wish_places());
        Ok(self.kernels.sample(&self.drawn, logits, wishes, self.slots.penalties(), sequences)?)
    }

    /// The tokens that a sequence drew, as far as its guesses were right.
    fn read(&mut self, from: &Pinned<i32>, due: &Due) -> Vec<Sampled> {
        let Some(slot) = self.slots.get(due.slot) else { return Vec::new() };
        let places = due.rows.clone().map(|row| self.drawn.places(row));
        let drawn = places.take_while(|[token, ..]| from[*token] > NO_TOKEN);
        let sampled: Vec<Sampled> = drawn.map(|places| Drawn::sampled(from, places, slot.logprobs())).collect();
        slot.drew(due.rows.len(), sampled.len());
        sampled
    }
}

/// The batch size as which so many rows are recorded.
fn padded(rows: usize) -> Option<usize> {
    BATCHES.into_iter().find(|&size| size >= rows)
}

impl Exchange {
    fn new(gpu: &Arc<Gpu>, capacity: Capacity) -> Result<Self, EngineError> {
        Ok(Self {
            to: Pinned::new(gpu, capacity.numbers())?,
            from: Pinned::new(gpu, Drawn::numbers(capacity.logits))?,
            begun: Event::new(gpu)?,
            done: Event::new(gpu)?,
        })
    }
}

impl Executor for CudaExecutor {
    fn sizes(&self) -> ModelSizes {
        self.sizes
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn begin(
        &mut self,
        slot: usize,
        sampling: Sampling,
        logprobs: Option<u8>,
        prompt: &[u32],
    ) -> Result<(), EngineError> {
        self.gpu.bind()?;
        self.pending.remove(&slot);
        if self.slots.begin(slot, sampling, logprobs, prompt, &self.kernels)? {
            // They know where the counts were.
            self.graphs.clear();
        }
        Ok(())
    }

    fn end(&mut self, slot: usize) {
        self.pending.remove(&slot);
        self.slots.end(slot);
    }

    fn launch(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        self.gpu.bind()?;
        let slots = batch.sequences.iter().map(|sequence| sequence.slot);
        let sequences: Vec<Due> = slots.zip(batch.wanted()).map(|(slot, rows)| Due { slot, rows }).collect();
        let mut exchange = match self.spare.pop() {
            Some(exchange) => exchange,
            None => return Err(EngineError::Compute("too many steps are under way".to_owned())),
        };
        let started = self.start(batch, &mut exchange, &sequences);
        if let Err(error) = started {
            // What was started of it may still read and write the memory of the host.
            let settled = self.gpu.synchronize();
            self.spare.push(exchange);
            return Err(settled.err().map_or(error, EngineError::from));
        }
        self.pending.clear();
        let drawing = sequences.iter().filter(|due| !due.rows.is_empty());
        self.pending.extend(drawing.map(|due| (due.slot, due.rows.start)));
        self.under_way.push_back(UnderWay { exchange, sequences });
        Ok(())
    }

    fn land(&mut self) -> Result<Landed, EngineError> {
        let Some(UnderWay { exchange, sequences }) = self.under_way.pop_front() else {
            return Err(EngineError::Compute("no step is under way".to_owned()));
        };
        let waited = self.gpu.bind().and_then(|()| exchange.done.wait());
        let now = Instant::now();
        let landed = waited.and_then(|()| exchange.done.since(&exchange.begun)).map(|device| Landed {
            drawn: sequences.iter().map(|due| self.read(&exchange.from, due)).collect(),
            computed: now,
            sampled: now,
            device: Some(device),
        });
        self.spare.push(exchange);
        Ok(landed?)
    }
}
