//! A model's weights on the device.

use std::{ops::Add, sync::Arc};

use crate::{
    config::KvType,
    error::EngineError,
    kernels::{
        cpu::WeightSize,
        cuda::{Buffer, Element, Gpu, KvElement, KvShape, MOST_TOKENS, Placing, Stack},
    },
    loader::{LayerWeight, ModelConfig, Quantization, Tensor, WeightName, Weights},
    model::{ModelSizes, tensor},
};

/// Weights in place, before the cache is sized.
#[derive(Debug)]
pub struct Placed {
    pub(super) gpu: Arc<Gpu>,
    pub(super) config: ModelConfig,
    pub(super) element: Element,
    pub(super) embedding: Buffer<u8>,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: Buffer<f32>,
    pub(super) output: Stack,
    pub(super) kv: KvElement,
}

/// A layer's weights; matrices that read the same rows are stacked.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Buffer<f32>,
    pub(super) query_key_value: Stack,
    pub(super) attention_output: Stack,
    pub(super) feed_forward_norm: Buffer<f32>,
    pub(super) gate_up: Stack,
    pub(super) down: Stack,
}

impl Placed {
    /// Copies the weights to the device, quantising the linear layers if asked to.
    pub fn new(
        gpu: &Arc<Gpu>,
        config: &ModelConfig,
        weights: &Weights,
        quantize: Option<Quantization>,
        kv_type: KvType,
    ) -> Result<Self, EngineError> {
        check(config)?;
        let embedding = tensor(weights, WeightName::Embedding)?;
        // Weights of fewer bits are computed with in half precision, which holds them with fewer losses than bf16.
        let element = match quantize {
            Some(Quantization::Q8_0 | Quantization::Q4K) => Element::F16,
            Some(Quantization::Fp8) | None => Element::of(embedding.dtype).unwrap_or(Element::F16),
        };
        let placing = Placing::new(gpu, element, quantize)?;
        let output = if config.tied_embeddings { embedding } else { tensor(weights, WeightName::Output)? };
        Ok(Self {
            gpu: Arc::clone(gpu),
            config: config.clone(),
            element,
            embedding: placing.dense(embedding)?,
            layers: (0..config.layers)
                .map(|index| Layer::new(&placing, weights, index))
                .collect::<Result<_, EngineError>>()?,
            output_norm: placing.single(tensor(weights, WeightName::OutputNorm)?)?,
            output: placing.stack(&[output])?,
            kv: match kv_type {
                KvType::F16 => KvElement::Same,
                KvType::Q8 => KvElement::Q8,
            },
        })
    }

    /// What decides about the work of a step.
    pub fn sizes(&self) -> ModelSizes {
        ModelSizes {
            layers: self.layers.iter().map(Layer::size).fold(WeightSize::default(), Add::add),
            output: norm_size(&self.output_norm) + self.output.size(),
            embedding_row_bytes: (self.config.hidden_size * self.element.bytes()) as u64,
            kv_position_bytes: self.kv_shape(1).block_bytes() as u64,
            window: self.config.sliding_window.unwrap_or(usize::MAX),
        }
    }

    /// Bytes of all weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        let sizes = self.sizes();
        self.embedding.bytes() as u64 + sizes.layers.bytes + sizes.output.bytes
    }

    /// What its cache will be made of.
    pub fn kv_shape(&self, block_size: usize) -> KvShape {
        KvShape {
            layers: self.config.layers,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            block_size,
            element: self.element,
            kv: self.kv,
        }
    }

    /// What rows are made of.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The device it lies on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

/// The sizes that the kernels are made for.
fn check(config: &ModelConfig) -> Result<(), EngineError> {
    const MULTIPLE: usize = 8;
    const MOST: usize = 256;
    let refuse = |what: String| Err(EngineError::Config(format!("{what} on a GPU; use --device cpu")));
    let ModelConfig { head_dim, vocab_size, .. } = *config;
    if !head_dim.is_multiple_of(MULTIPLE) || head_dim > MOST {
        return refuse(format!("heads of {head_dim} numbers must be a multiple of {MULTIPLE}, {MOST} at most,"));
    }
    if vocab_size > MOST_TOKENS {
        return refuse(format!(
            "a vocabulary of {vocab_size} tokens is more than the {MOST_TOKENS} that are supported"
        ));
    }
    Ok(())
}

impl Layer {
    fn new(placing: &Placing, weights: &Weights, index: usize) -> Result<Self, EngineError> {
        let get = |weight| tensor(weights, WeightName::Layer(index, weight));
        let stack = |names: &[LayerWeight]| {
            let tensors = names.iter().map(|&name| get(name)).collect::<Result<Vec<&Tensor>, _>>()?;
            placing.stack(&tensors)
        };
        Ok(Self {
            attention_norm: placing.single(get(LayerWeight::AttentionNorm)?)?,
            query_key_value: stack(&[LayerWeight::Query, LayerWeight::Key, LayerWeight::Value])?,
            attention_output: stack(&[LayerWeight::AttentionOutput])?,
            feed_forward_norm: placing.single(get(LayerWeight::FeedForwardNorm)?)?,
            gate_up: stack(&[LayerWeight::Gate, LayerWeight::Up])?,
            down: stack(&[LayerWeight::Down])?,
        })
    }

    fn size(&self) -> WeightSize {
        let Self { attention_norm, query_key_value, attention_output, feed_forward_norm, gate_up, down } = self;
        let matrices = [query_key_value, attention_output, gate_up, down].map(Stack::size);
        let norms = [attention_norm, feed_forward_norm].map(norm_size);
        matrices.into_iter().chain(norms).fold(WeightSize::default(), Add::add)
    }
}

fn norm_size(norm: &Buffer<f32>) -> WeightSize {
    WeightSize { bytes: norm.bytes() as u64, weights: 0 }
}
