//! Mistral: rotary grouped-query attention with a sliding window, gated feed-forward, RMS norms.
//!
//! Jiang et al., "Mistral 7B", arXiv 2310.06825; the layout of `transformers`' `MistralForCausalLM`.

use std::sync::Arc;

use super::{Model, StepBatch};
use crate::{
    error::EngineError,
    kernels::cpu::{
        Attention, Embedding, KvCache, KvDtype, KvShape, Linear, Products, Rope, Row, Threads, add_assign, rms_norm,
    },
    loader::{Dtype, LayerWeight, ModelConfig, Quantization, Tensor, WeightName, Weights},
};

/// A placed model with its KV cache and the buffers of a step.
#[derive(Debug)]
pub struct Mistral {
    config: ModelConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Linear,
    rope: Rope,
    cache: KvCache,
    threads: Arc<Threads>,
    products: Products,
    buffers: Buffers,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    feed_forward_norm: Vec<f32>,
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
    output_norm: Vec<f32>,
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
                .map(|index| Layer::new(index, weights, quantize, &threads))
                .collect::<Result<_, _>>()?,
            output_norm: vector(tensor(weights, WeightName::OutputNorm)?)?,
            output: Linear::new(output, quantize, &threads)?,
            kv_dtype,
            threads,
        })
    }

    /// The same with keys and values stored as `dtype`.
    pub fn with_kv_dtype(self, dtype: KvDtype) -> Self {
        Self { kv_dtype: dtype, ..self }
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

    /// The model with a cache of `blocks` blocks.
    pub fn with_cache(self, block_size: usize, blocks: usize) -> Mistral {
        Mistral {
            cache: KvCache::new(self.kv_shape(block_size), blocks),
            rope: Rope::new(&self.config),
            config: self.config,
            embedding: self.embedding,
            layers: self.layers,
            output_norm: self.output_norm,
            output: self.output,
            threads: self.threads,
            products: Products::default(),
            buffers: Buffers::default(),
        }
    }
}

impl Layer {
    fn new(
        index: usize,
        weights: &Weights,
        quantize: Option<Quantization>,
        threads: &Threads,
    ) -> Result<Self, EngineError> {
        let get = |weight| tensor(weights, WeightName::Layer(index, weight));
        let linear = |weight| Linear::new(get(weight)?, quantize, threads);
        Ok(Self {
            attention_norm: vector(get(LayerWeight::AttentionNorm)?)?,
            query: linear(LayerWeight::Query)?,
            key: linear(LayerWeight::Key)?,
            value: linear(LayerWeight::Value)?,
            attention_output: linear(LayerWeight::AttentionOutput)?,
            feed_forward_norm: vector(get(LayerWeight::FeedForwardNorm)?)?,
            gate: linear(LayerWeight::Gate)?,
            up: linear(LayerWeight::Up)?,
            down: linear(LayerWeight::Down)?,
        })
    }
}

fn tensor(weights: &Weights, name: WeightName) -> Result<&Tensor, EngineError> {
    weights.get(name).ok_or_else(|| EngineError::Compute(format!("the model has no {name:?}")))
}

fn vector(tensor: &Tensor) -> Result<Vec<f32>, EngineError> {
    let mut out = Vec::new();
    Embedding::new(&tensor.as_row())?.forward(&[0], &mut out)?;
    Ok(out)
}

impl Model for Mistral {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn forward(&mut self, batch: &StepBatch, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.embedding.forward(&batch.tokens, &mut self.buffers.hidden)?;
        self.rope.prepare(&batch.positions);
        let rows = rows(batch);
        for index in 0..self.layers.len() {
            self.attention(index, batch, &rows)?;
            self.feed_forward(index)?;
        }
        let width = self.config.hidden_size;
        let Buffers { hidden, normed, projected, .. } = &mut self.buffers;
        projected.clear();
        for &row in &batch.logit_rows {
            projected.extend_from_slice(&hidden[row * width..(row + 1) * width]);
        }
        normed.resize(projected.len(), 0.0);
        rms_norm(projected, &self.output_norm, self.config.rms_norm_eps, normed);
        self.products.forward(&self.threads, normed, [(&self.output, logits)])
    }
}

impl Mistral {
    /// Its KV cache, for those who fill it themselves.
    pub fn cache_mut(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    fn attention(&mut self, index: usize, batch: &StepBatch, rows: &[Row<'_>]) -> Result<(), EngineError> {
        let (config, layer, buffers) = (&self.config, &self.layers[index], &mut self.buffers);
        buffers.normed.resize(buffers.hidden.len(), 0.0);
        rms_norm(&buffers.hidden, &layer.attention_norm, config.rms_norm_eps, &mut buffers.normed);
        let Buffers { normed, query, key, value, .. } = buffers;
        let heads = [(&layer.query, query), (&layer.key, key), (&layer.value, value)];
        self.products.forward(&self.threads, normed, heads)?;
        self.rope.apply(&mut buffers.query, config.heads);
        self.rope.apply(&mut buffers.key, config.kv_heads);
        self.cache.write(index, &batch.slots, &buffers.key, &buffers.value);
        buffers.attended.resize(buffers.query.len(), 0.0);
        let attention = Attention { heads: config.heads, window: config.sliding_window };
        attention.forward(&self.cache, index, rows, &buffers.query, &mut buffers.attended);
        let output = [(&layer.attention_output, &mut buffers.projected)];
        self.products.forward(&self.threads, &buffers.attended, output)?;
        add_assign(&mut buffers.hidden, &buffers.projected);
        Ok(())
    }

    fn feed_forward(&mut self, index: usize) -> Result<(), EngineError> {
        let (layer, buffers) = (&self.layers[index], &mut self.buffers);
        rms_norm(&buffers.hidden, &layer.feed_forward_norm, self.config.rms_norm_eps, &mut buffers.normed);
        let Buffers { normed, gated, up, projected, .. } = buffers;
        self.products.gated(&self.threads, normed, (&layer.gate, &layer.up), (gated, up))?;
        self.products.forward(&self.threads, gated, [(&layer.down, projected)])?;
        add_assign(&mut buffers.hidden, &buffers.projected);
        Ok(())
    }
}

fn rows(batch: &StepBatch) -> Vec<Row<'_>> {
    let mut rows = Vec::with_capacity(batch.tokens.len());
    for sequence in &batch.sequences {
        let blocks = &batch.block_tables[sequence.blocks.clone()];
        rows.extend(sequence.rows.clone().map(|row| Row { blocks, position: batch.positions[row] as usize }));
    }
    rows
}
