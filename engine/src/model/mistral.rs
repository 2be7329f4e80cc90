//! Mistral: rotary grouped-query attention with a sliding window, gated feed-forward, RMS norms.
//!
//! Jiang et al., "Mistral 7B", arXiv 2310.06825; the layout of `transformers`' `MistralForCausalLM`.

use std::{ops::Add, sync::Arc};

use super::{BatchSequence, Model, ModelSizes, StepBatch, tensor};
use crate::{
    error::EngineError,
    kernels::cpu::{
        Arithmetic, Attention, Chunk, Embedding, KvCache, KvDtype, KvShape, Linear, Products, RmsNorm, Rope, Threads,
        WeightSize,
    },
    loader::{Dtype, LayerWeight, ModelConfig, Quantization, Tensor, WeightName, Weights},
};

/// A placed model with its KV cache and the buffers of a step.
#[derive(Debug)]
pub struct Mistral {
    config: ModelConfig,
    sizes: ModelSizes,
    embedding: Embedding,
    layers: Vec<Layer>,
    output_norm: RmsNorm,
    output: Linear,
    rope: Rope,
    cache: KvCache,
    threads: Arc<Threads>,
    products: Products,
    buffers: Buffers,
}

#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Activations of a step, kept between steps.
#[derive(Debug, Default)]
struct Buffers {
    hidden: Vec<f32>,
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    gated: Vec<f32>,
    up: Vec<f32>,
    projected: Vec<f32>,
}

/// A model's weights in place, before its cache is sized.
#[derive(Debug)]
pub struct Placed {
    config: ModelConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    output_norm: RmsNorm,
    output: Linear,
    kv_dtype: KvDtype,
    threads: Arc<Threads>,
}

impl Placed {
    /// Places the weights, quantising the linear layers if asked to; `threads` compute.
    pub fn new(
        config: &ModelConfig,
        weights: &Weights,
        quantize: Option<Quantization>,
        threads: Arc<Threads>,
    ) -> Result<Self, EngineError> {
        let embedding = tensor(weights, WeightName::Embedding)?;
        let output = if config.tied_embeddings { embedding } else { tensor(weights, WeightName::Output)? };
        // A single-precision model is served in single precision throughout.
        let kv_dtype = if embedding.dtype == Dtype::F32 { KvDtype::F32 } else { KvDtype::F16 };
        Ok(Self {
            config: config.clone(),
            embedding: Embedding::new(embedding)?,
            layers: (0..config.layers)
                .map(|index| Layer::new(index, config, weights, (quantize, &threads)))
                .collect::<Result<_, _>>()?,
            output_norm: norm(tensor(weights, WeightName::OutputNorm)?, config)?,
            output: Linear::new(output, quantize, &threads)?,
            kv_dtype,
            threads,
        })
    }

    /// The same with keys and values stored as `dtype`.
    pub fn with_kv_dtype(self, dtype: KvDtype) -> Self {
        Self { kv_dtype: dtype, ..self }
    }

    /// What decides about the work of a step.
    pub fn sizes(&self) -> ModelSizes {
        ModelSizes {
            layers: self.layers.iter().map(Layer::size).fold(WeightSize::default(), Add::add),
            output: self.output_norm.size() + self.output.size(),
            embedding_row_bytes: self.embedding.row_bytes() as u64,
            kv_position_bytes: self.kv_shape(1).block_bytes() as u64,
            window: self.config.sliding_window.unwrap_or(usize::MAX),
        }
    }

    /// What most of its weights are multiplied in: those of the feed-forward layers.
    pub fn arithmetic(&self) -> Arithmetic {
        self.layers.first().map_or(self.output.arithmetic(), |layer| layer.down.arithmetic())
    }

    /// Bytes of all weights as they are computed with.
    pub fn weight_bytes(&self) -> u64 {
        let sizes = self.sizes();
        let embedding = match self.config.tied_embeddings {
            true => 0,
            false => self.config.vocab_size as u64 * sizes.embedding_row_bytes,
        };
        embedding + sizes.layers.bytes + sizes.output.bytes
    }

    /// What its KV cache will be made of.
    pub fn kv_shape(&self, block_size: usize) -> KvShape {
        KvShape {
            layers: self.config.layers,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            block_size,
            dtype: self.kv_dtype,
        }
    }

    /// The model with a cache of `blocks` blocks; an error where there is no room for it.
    pub fn with_cache(self, block_size: usize, blocks: usize) -> Result<Mistral, EngineError> {
        let shape = self.kv_shape(block_size);
        let cache = KvCache::new(shape, blocks).map_err(|error| {
            let bytes = blocks.saturating_mul(shape.block_bytes());
            EngineError::Config(format!(
                "no memory for a KV cache of {bytes} bytes ({error}); give it less with kv_memory"
            ))
        })?;
        Ok(Mistral {
            cache,
            sizes: self.sizes(),
            rope: Rope::new(&self.config),
            config: self.config,
            embedding: self.embedding,
            layers: self.layers,
            output_norm: self.output_norm,
            output: self.output,
            threads: self.threads,
            products: Products::default(),
            buffers: Buffers::default(),
        })
    }
}

impl Layer {
    fn new(
        index: usize,
        config: &ModelConfig,
        weights: &Weights,
        (quantize, threads): (Option<Quantization>, &Threads),
    ) -> Result<Self, EngineError> {
        let get = |weight| tensor(weights, WeightName::Layer(index, weight));
        let linear = |weight| Linear::new(get(weight)?, quantize, threads);
        Ok(Self {
            attention_norm: norm(get(LayerWeight::AttentionNorm)?, config)?,
            query: linear(LayerWeight::Query)?,
            key: linear(LayerWeight::Key)?,
            value: linear(LayerWeight::Value)?,
            attention_output: linear(LayerWeight::AttentionOutput)?,
            feed_forward_norm: norm(get(LayerWeight::FeedForwardNorm)?, config)?,
            gate: linear(LayerWeight::Gate)?,
            up: linear(LayerWeight::Up)?,
            down: linear(LayerWeight::Down)?,
        })
    }

    fn size(&self) -> WeightSize {
        let Self { query, key, value, attention_output, gate, up, down, .. } = self;
        let matrices = [query, key, value, attention_output, gate, up, down].map(Linear::size);
        let norms = [&self.attention_norm, &self.feed_forward_norm].map(RmsNorm::size);
        matrices.into_iter().chain(norms).fold(WeightSize::default(), Add::add)
    }
}

fn norm(tensor: &Tensor, config: &ModelConfig) -> Result<RmsNorm, EngineError> {
    let mut weight = Vec::new();
    Embedding::new(&tensor.as_row())?.forward(&[0], &mut weight)?;
    Ok(RmsNorm::new(weight, config.rms_norm_eps))
}

impl Model for Mistral {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn sizes(&self) -> ModelSizes {
        self.sizes
    }

    fn forward(&mut self, batch: &StepBatch, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.embedding.forward(&batch.tokens, &mut self.buffers.hidden)?;
        self.rope.prepare(&batch.positions);
        let chunks = chunks(batch);
        for index in 0..self.layers.len() {
            self.attention(index, batch, &chunks)?;
            self.feed_forward(index)?;
        }
        let Buffers { hidden, normed, projected, .. } = &mut self.buffers;
        for rows in [&mut *hidden, &mut *projected] {
            keep_rows(rows, &batch.logit_rows, self.config.hidden_size);
        }
        normed.resize(hidden.len(), 0.0);
        self.output_norm.add_forward(&self.threads, hidden, projected, normed);
        self.products.forward(&self.threads, normed, [(&self.output, logits)])
    }
}

impl Mistral {
    /// Its KV cache, for those who fill it themselves.
    pub fn cache_mut(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Attention up to its projection, which the feed-forward part adds to `hidden`; that part's own projection
    /// waits likewise for the next layer, or for the output's norm.
    fn attention(&mut self, index: usize, batch: &StepBatch, chunks: &[Chunk<'_>]) -> Result<(), EngineError> {
        let (config, layer, threads) = (&self.config, &self.layers[index], &*self.threads);
        let Buffers { hidden, normed, query, key, value, attended, projected, .. } = &mut self.buffers;
        normed.resize(hidden.len(), 0.0);
        match index {
            0 => layer.attention_norm.forward(threads, hidden, normed),
            _ => layer.attention_norm.add_forward(threads, hidden, projected, normed),
        }
        let heads = [(&layer.query, &mut *query), (&layer.key, &mut *key), (&layer.value, &mut *value)];
        self.products.forward(threads, normed, heads)?;
        self.rope.apply(threads, query, config.heads);
        self.rope.apply(threads, key, config.kv_heads);
        self.cache.write(threads, index, &batch.slots, key, value);
        attended.resize(query.len(), 0.0);
        let attention = Attention { heads: config.heads, window: config.sliding_window };
        attention.forward(threads, self.cache.layer(index), chunks, query, attended);
        self.products.forward(threads, attended, [(&layer.attention_output, projected)])
    }

    fn feed_forward(&mut self, index: usize) -> Result<(), EngineError> {
        let (layer, threads) = (&self.layers[index], &*self.threads);
        let Buffers { hidden, normed, gated, up, projected, .. } = &mut self.buffers;
        layer.feed_forward_norm.add_forward(threads, hidden, projected, normed);
        self.products.gated(threads, normed, (&layer.gate, &layer.up), (gated, up))?;
        self.products.forward(threads, gated, [(&layer.down, projected)])
    }
}

/// Keeps those rows of `x`, which are ascending, alone.
fn keep_rows(x: &mut Vec<f32>, rows: &[usize], width: usize) {
    for (to, &row) in rows.iter().enumerate() {
        x.copy_within(row * width..(row + 1) * width, to * width);
    }
    x.truncate(rows.len() * width);
}

fn chunks(batch: &StepBatch) -> Vec<Chunk<'_>> {
    let chunk = |sequence: &BatchSequence| Chunk {
        blocks: &batch.block_tables[sequence.blocks.clone()],
        start: batch.positions[sequence.rows.start] as usize,
        rows: sequence.rows.len(),
    };
    batch.sequences.iter().map(chunk).collect()
}
