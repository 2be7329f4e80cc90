//! A GGUF file: configuration, weights and vocabulary of a Llama-layout model.
//!
//! Query and key rows stay as the file has them, with rotary pairs side by side
//! ([`RopeLayout::Interleaved`]): quantised rows cannot be reordered for free, and need not be.

mod header;
mod reader;
mod vocabulary;

use std::{collections::HashMap, path::Path};

use header::Header;
use reader::Value;

use super::{Dtype, LayerWeight, ModelConfig, RopeLayout, Tensor, WeightName, Weights, map::map};
use crate::{error::LoadError, text::GgufVocabulary};

/// Llama.cpp's per-dimension divisors of the rotary frequencies.
const ROPE_FREQUENCIES: &str = "rope_freqs.weight";

/// Configuration, weights and vocabulary of the file.
pub(super) fn open(path: &Path) -> Result<(ModelConfig, Weights, GgufVocabulary), LoadError> {
    let file = map(path)?;
    let invalid = |reason| LoadError::invalid(path, reason);
    let header = header::parse(&file).map_err(invalid)?;
    let keys = Keys::new(&header).map_err(invalid)?;
    let config = parse_config(&keys, &header).map_err(invalid)?;
    let vocabulary = vocabulary::read(&keys, config.vocab_size).map_err(invalid)?;
    let mut tensors = HashMap::with_capacity(header.tensors.len());
    for info in &header.tensors {
        let name = info.name.to_owned();
        let tensor = Tensor::new(name.clone(), info.shape.clone(), info.dtype, file.clone(), info.range.clone());
        if tensors.insert(name, tensor).is_some() {
            return Err(invalid(format!("tensor {} is there twice", info.name)));
        }
    }
    if let Some(frequencies) = tensors.remove(ROPE_FREQUENCIES) {
        check_rope_frequencies(&frequencies).map_err(invalid)?;
    }
    let weights = Weights::collect(&config, tensors, spelling).map_err(invalid)?;
    Ok((config, weights, vocabulary))
}

/// What llama.cpp calls a weight.
pub(crate) fn spelling(name: WeightName) -> String {
    let (layer, weight) = match name {
        WeightName::Embedding => return "token_embd.weight".to_owned(),
        WeightName::OutputNorm => return "output_norm.weight".to_owned(),
        WeightName::Output => return "output.weight".to_owned(),
        WeightName::Layer(layer, weight) => (layer, weight),
    };
    let weight = match weight {
        LayerWeight::AttentionNorm => "attn_norm",
        LayerWeight::Query => "attn_q",
        LayerWeight::Key => "attn_k",
        LayerWeight::Value => "attn_v",
        LayerWeight::AttentionOutput => "attn_output",
        LayerWeight::FeedForwardNorm => "ffn_norm",
        LayerWeight::Gate => "ffn_gate",
        LayerWeight::Up => "ffn_up",
        LayerWeight::Down => "ffn_down",
    };
    format!("blk.{layer}.{weight}.weight")
}

/// Divisors that are all 1 change nothing; others (Llama 3.1's) are a rope scaling.
fn check_rope_frequencies(tensor: &Tensor) -> Result<(), String> {
    let plain = tensor.dtype == Dtype::F32 && tensor.bytes().chunks_exact(4).all(|bytes| bytes == 1f32.to_le_bytes());
    if plain { Ok(()) } else { Err(format!("tensor {ROPE_FREQUENCIES} scales the rotary embedding: not supported")) }
}

fn parse_config(keys: &Keys<'_>, header: &Header<'_>) -> Result<ModelConfig, String> {
    refuse_unsupported(keys)?;
    let hidden_size = keys.size("embedding_length")?;
    let heads = keys.size("attention.head_count")?;
    let head_dim = match keys.optional_size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => return Err(format!("{} is not a multiple of {heads} heads", keys.spell("embedding_length"))),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = keys.optional_size(key)?.filter(|&other| other != head_dim) {
            return Err(format!("{} is {other}, unlike the head dimension {head_dim}: not supported", keys.spell(key)));
        }
    }
    let embedding = header.tensors.iter().find(|info| info.name == "token_embd.weight");
    let embedding = embedding.ok_or("tensor token_embd.weight is missing")?;
    let config = ModelConfig {
        vocab_size: embedding.shape[0],
        hidden_size,
        intermediate_size: keys.size("feed_forward_length")?,
        layers: keys.size("block_count")?,
        heads,
        kv_heads: keys.optional_size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        rms_norm_eps: keys
            .number("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| format!("{} is missing", keys.spell("attention.layer_norm_rms_epsilon")))?
            as f32,
        rope_theta: keys.number("rope.freq_base")?.unwrap_or(10_000.0) as f32,
        rope_layout: RopeLayout::Interleaved,
        sliding_window: keys.optional_size("attention.sliding_window")?.filter(|&window| window > 0),
        max_context: keys.size("context_length")?,
        tied_embeddings: !header.tensors.iter().any(|info| info.name == "output.weight"),
    };
    config.validate()?;
    Ok(config)
}

fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), String> {
    if let Some(scaling) = keys.get("rope.scaling.type").filter(|value| value.text() != Some("none")) {
        return Err(format!("{} is {scaling}: rope scaling is not supported", keys.spell("rope.scaling.type")));
    }
    for key in ["rope.scaling.factor", "rope.scale_linear"] {
        if let Some(factor) = keys.number(key)?.filter(|&factor| factor != 1.0 && factor != 0.0) {
            return Err(format!("{} is {factor}: rope scaling is not supported", keys.spell(key)));
        }
    }
    for key in ["expert_count", "attention.temperature_scale"] {
        if let Some(value) = keys.number(key)?.filter(|&value| value != 0.0) {
            return Err(format!("{} is {value}: not supported", keys.spell(key)));
        }
    }
    match keys.plain("split.count").and_then(Value::unsigned) {
        None | Some(0 | 1) => Ok(()),
        Some(parts) => Err(format!("is one of {parts} parts; join them with llama-gguf-split --merge")),
    }
}

/// Metadata whose keys begin with the architecture's name; errors name the whole key.
struct Keys<'a> {
    metadata: &'a HashMap<&'a str, Value<'a>>,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    fn new(header: &'a Header<'a>) -> Result<Self, String> {
        let value = header.metadata.get("general.architecture").ok_or("general.architecture is missing")?;
        match value.text() {
            Some(architecture @ ("llama" | "mistral" | "mistral3")) => {
                Ok(Self { metadata: &header.metadata, architecture })
            }
            _ => Err(format!("general.architecture is {value}; supported are llama, mistral and mistral3")),
        }
    }

    fn spell(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// The value of a key that is not the architecture's.
    fn plain(&self, key: &str) -> Option<&'a Value<'a>> {
        self.metadata.get(key)
    }

    fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.metadata.get(self.spell(key).as_str())
    }

    fn size(&self, key: &str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("{} is missing", self.spell(key)))
    }

    /// A size, or an array that has the same size for every layer.
    fn optional_size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = match value {
            Value::Array(array) => {
                let mut sizes = array.values().map(|size| size.unsigned());
                let first = sizes.next().flatten();
                first.filter(|_| sizes.all(|size| size == first))
            }
            other => other.unsigned(),
        };
        let size = size.and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| format!("{} is {value}, not one whole number", self.spell(key)))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.number().map(Some).ok_or_else(|| format!("{} is {value}, not a number", self.spell(key)))
    }
}
