//! The layers of a step, started one after the other on the device's stream.

use super::{
    step::{StepArrays, StepShape},
    weights::{Layer, Placed},
};
use crate::{
    error::EngineError,
    kernels::{
        cpu::inverse_frequencies,
        cuda::{
            Attention, Buffer, CudaError, Heads, Kind, KvCache, Norm, Products, RowKernels, RowKinds, RowRange, SPLIT,
            SampleKernels, Stack,
        },
    },
    loader::{ModelConfig, RopeLayout},
};

/// The model with its cache, and the activations of the largest step.
#[derive(Debug)]
pub(super) struct CudaMistral {
    placed: Placed,
    pub(super) cache: KvCache,
    rows: RowKernels,
    attention: Attention,
    products: Products,
    activations: Activations,
}

/// Rows between kernels; of the largest step, so that they never move.
#[derive(Debug)]
struct Activations {
    hidden: Buffer<f32>,
    normed: Buffer<u8>,
    qkv: Buffer<u8>,
    attended: Buffer<u8>,
    gate_up: Buffer<u8>,
    gated: Buffer<u8>,
    projected: Buffer<u8>,
    logits: Buffer<f32>,
}

impl Activations {
    fn new(placed: &Placed, rows: usize, logits: usize) -> Result<Self, CudaError> {
        let (config, gpu) = (&placed.config, &placed.gpu);
        let numbers = |width: usize| Buffer::new(gpu, rows.max(logits) * width * placed.element.bytes());
        let heads = heads(config);
        Ok(Self {
            hidden: Buffer::new(gpu, rows * config.hidden_size)?,
            normed: numbers(config.hidden_size)?,
            qkv: numbers(heads.qkv_width())?,
            attended: numbers(config.heads * config.head_dim)?,
            gate_up: numbers(2 * config.intermediate_size)?,
            gated: numbers(config.intermediate_size)?,
            projected: numbers(config.hidden_size)?,
            logits: Buffer::new(gpu, logits * SampleKernels::stride(config.vocab_size))?,
        })
    }
}

impl CudaMistral {
    /// The model for steps of up to `rows` rows, of which `logits` want logits, and contexts of up to `context`.
    pub(super) fn new(
        placed: Placed,
        (rows, logits, context): (usize, usize, usize),
        cache: impl FnOnce(&Placed) -> Result<KvCache, EngineError>,
    ) -> Result<Self, EngineError> {
        let gpu = &placed.gpu;
        let kernels = RowKernels::new(gpu, placed.element)?;
        let attention =
            Attention::new(gpu, heads(&placed.config), (placed.element, placed.kv), &turns(&placed.config, context))?;
        let products = Products::new(gpu, placed.element, rows, placed.stacks())?;
        let activations = Activations::new(&placed, rows, logits)?;
        // Last, so that it can take what is left.
        let cache = cache(&placed)?;
        Ok(Self { cache, rows: kernels, attention, products, activations, placed })
    }

    pub(super) fn placed(&self) -> &Placed {
        &self.placed
    }

    pub(super) fn logits(&self) -> &Buffer<f32> {
        &self.activations.logits
    }

    /// Starts a step up to its logits. A token below zero is one of `sampled`.
    pub(super) fn forward(
        &self,
        step: &StepArrays,
        shape: StepShape,
        sampled: &Buffer<i32>,
    ) -> Result<(), EngineError> {
        let (a, config) = (&self.activations, &self.placed.config);
        let size = (shape.rows(), config.hidden_size);
        self.rows.embed(&a.hidden, &self.placed.embedding, (step.tokens(), sampled), size)?;
        for (index, layer) in self.placed.layers.iter().enumerate() {
            let delta = (index > 0).then_some(&a.projected);
            self.attend(index, layer, delta, step, shape)?;
            self.feed_forward(layer, shape)?;
        }
        let norm = Norm { rows: step.logit_rows(), ..self.norm(Some(&a.projected), &self.placed.output_norm) };
        self.rows.add_norm(&norm, shape.logits)?;
        let stride = SampleKernels::stride(config.vocab_size);
        self.products.logits(&self.placed.output, &a.normed, shape.logits, (&a.logits, stride))?;
        Ok(())
    }

    /// Attention up to its projection, which the feed-forward part adds to the hidden rows.
    fn attend(
        &self,
        index: usize,
        layer: &Layer,
        delta: Option<&Buffer<u8>>,
        step: &StepArrays,
        shape: StepShape,
    ) -> Result<(), EngineError> {
        let (a, places, cache) = (&self.activations, step.places(), &self.cache);
        self.rows.add_norm(&self.norm(delta, &layer.attention_norm), shape.rows())?;
        let rows = RowKinds { answers: shape.answers, prompts: shape.prompts };
        self.products.forward(&layer.query_key_value, &a.normed, rows, &a.qkv)?;
        self.attention.rope_write(&a.qkv, cache, index, &places, shape.rows())?;
        let splits = |context: usize| context.div_ceil(SPLIT).next_power_of_two();
        let answers = RowRange { first: 0, count: shape.answers };
        let through = (&a.qkv, &a.attended);
        self.attention.answers(through, (cache, index), &places, answers, splits(shape.answer_context))?;
        if self.attention.has_prefill() {
            self.attention.prompts(through, (cache, index), &places, shape.tiles)?;
        } else {
            let prompts = RowRange { first: shape.answers, count: shape.prompts };
            self.attention.answers(through, (cache, index), &places, prompts, splits(shape.prompt_context))?;
        }
        self.products.forward(&layer.attention_output, &a.attended, rows, &a.projected)?;
        Ok(())
    }

    fn feed_forward(&self, layer: &Layer, shape: StepShape) -> Result<(), EngineError> {
        let a = &self.activations;
        self.rows.add_norm(&self.norm(Some(&a.projected), &layer.feed_forward_norm), shape.rows())?;
        let rows = RowKinds { answers: shape.answers, prompts: shape.prompts };
        self.products.gated(&layer.gate_up, &a.normed, rows, (&a.gated, &a.gate_up), &self.rows)?;
        self.products.forward(&layer.down, &a.gated, rows, &a.projected)?;
        Ok(())
    }

    fn norm<'a>(&'a self, delta: Option<&'a Buffer<u8>>, weight: &'a Buffer<f32>) -> Norm<'a> {
        let Activations { hidden, normed, .. } = &self.activations;
        Norm { out: normed, hidden, delta, weight, rows: 0, epsilon: self.placed.config.rms_norm_eps }
    }
}

impl Placed {
    /// All linear layers, and what becomes of them.
    fn stacks(&self) -> impl Iterator<Item = (Kind, &Stack)> {
        self.layers.iter().flat_map(Layer::stacks).chain([(Kind::Logits, &self.output)])
    }
}

impl Layer {
    fn stacks(&self) -> [(Kind, &Stack); 4] {
        let Self { query_key_value, attention_output, gate_up, down, .. } = self;
        let linear = |stack| (Kind::Linear, stack);
        [linear(query_key_value), linear(attention_output), (Kind::Gated, gate_up), linear(down)]
    }
}

fn heads(config: &ModelConfig) -> Heads {
    Heads {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        interleaved: config.rope_layout == RopeLayout::Interleaved,
        window: config.sliding_window,
    }
}

/// Cosine and sine of every position's turns, as the CPU's rotary embedding makes them.
fn turns(config: &ModelConfig, context: usize) -> Vec<f32> {
    let frequencies = inverse_frequencies(config);
    let angle = |position: usize, frequency: f32| (position as f32 * frequency).sin_cos();
    (0..context)
        .flat_map(|position| frequencies.iter().map(move |&frequency| angle(position, frequency)))
        .flat_map(|(sin, cos)| [cos, sin])
        .collect()
}
