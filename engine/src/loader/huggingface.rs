//! A Hugging Face folder: `config.json`, and weights in `model.safetensors` or in the shards that
//! `model.safetensors.index.json` names.
//!
//! What `config.json` asks for and the model does not compute is refused by its key, never ignored. Shards
//! lie in the folder itself: an index cannot name a file elsewhere.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    path::{Component, Path},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{LayerWeight, ModelConfig, RopeLayout, Tensor, WeightName, Weights, safetensors};
use crate::error::LoadError;

const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_INDEX_BYTES: u64 = 1 << 26;

/// Configuration and weights of the folder.
pub(super) fn open(folder: &Path) -> Result<(ModelConfig, Weights), LoadError> {
    let path = folder.join("config.json");
    let keys: Map<String, Value> = read_json(&path, MAX_CONFIG_BYTES)?;
    let config = parse_config(&Keys(&keys)).map_err(|reason| LoadError::invalid(&path, reason))?;
    let mut tensors = open_tensors(folder)?;
    tensors.retain(|name, _| !ignored(name, &config));
    let weights = Weights::collect(&config, tensors, spelling).map_err(|reason| LoadError::invalid(folder, reason))?;
    Ok((config, weights))
}

fn open_tensors(folder: &Path) -> Result<HashMap<String, Tensor>, LoadError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return safetensors::open(&single);
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Err(LoadError::invalid(folder, "holds neither model.safetensors nor model.safetensors.index.json"));
    }
    open_shards(folder, &index)
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_shards(folder: &Path, path: &Path) -> Result<HashMap<String, Tensor>, LoadError> {
    let index: Index = read_json(path, MAX_INDEX_BYTES)?;
    let mut shards: HashMap<&str, HashMap<String, Tensor>> = HashMap::new();
    let mut tensors = HashMap::new();
    for (name, shard) in &index.weight_map {
        if !shards.contains_key(shard.as_str()) {
            if !is_plain_name(shard) {
                return Err(LoadError::invalid(path, format!("shard {shard:?} is not the name of a file beside it")));
            }
            shards.insert(shard, safetensors::open(&folder.join(shard))?);
        }
        let found = shards.get_mut(shard.as_str()).and_then(|shard| shard.remove(name));
        let Some(tensor) = found else {
            return Err(LoadError::invalid(
                folder.join(shard),
                format!("has no tensor {name}, which the index promises"),
            ));
        };
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// Reads a JSON file that is not longer than `most` bytes.
fn read_json<T: DeserializeOwned>(path: &Path, most: u64) -> Result<T, LoadError> {
    let io = |source| LoadError::io(path, source);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(LoadError::invalid(path, "not a regular file"));
    }
    let mut text = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(most + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > most {
        return Err(LoadError::invalid(path, format!("is longer than {most} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| LoadError::invalid(path, format!("not valid: {error}")))
}

/// Tensors that some exporters write and nothing reads.
fn ignored(name: &str, config: &ModelConfig) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || (config.tied_embeddings && name == "lm_head.weight")
}

/// What transformers calls a weight.
pub(crate) fn spelling(name: WeightName) -> String {
    let (layer, weight) = match name {
        WeightName::Embedding => return "model.embed_tokens.weight".to_owned(),
        WeightName::OutputNorm => return "model.norm.weight".to_owned(),
        WeightName::Output => return "lm_head.weight".to_owned(),
        WeightName::Layer(layer, weight) => (layer, weight),
    };
    let weight = match weight {
        LayerWeight::AttentionNorm => "input_layernorm",
        LayerWeight::Query => "self_attn.q_proj",
        LayerWeight::Key => "self_attn.k_proj",
        LayerWeight::Value => "self_attn.v_proj",
        LayerWeight::AttentionOutput => "self_attn.o_proj",
        LayerWeight::FeedForwardNorm => "post_attention_layernorm",
        LayerWeight::Gate => "mlp.gate_proj",
        LayerWeight::Up => "mlp.up_proj",
        LayerWeight::Down => "mlp.down_proj",
    };
    format!("model.layers.{layer}.{weight}.weight")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Architecture {
    Mistral,
    Llama,
}

fn parse_config(keys: &Keys<'_>) -> Result<ModelConfig, String> {
    let architecture = parse_architecture(keys)?;
    refuse_unsupported(keys)?;
    let hidden_size = keys.size("hidden_size")?;
    let heads = keys.size("num_attention_heads")?;
    let head_dim = match keys.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(format!("head_dim is absent and hidden_size {hidden_size} is not a multiple of {heads} heads"));
        }
    };
    let kv_heads = match (keys.optional_size("num_key_value_heads")?, architecture) {
        (Some(kv_heads), _) => kv_heads,
        (None, Architecture::Llama) => heads,
        (None, Architecture::Mistral) => return Err("num_key_value_heads is missing".to_owned()),
    };
    let config = ModelConfig {
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        intermediate_size: keys.size("intermediate_size")?,
        layers: keys.size("num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        rms_norm_eps: keys.number("rms_norm_eps")?.ok_or("rms_norm_eps is missing")? as f32,
        rope_theta: parse_rope_theta(keys)? as f32,
        rope_layout: RopeLayout::HalfSplit,
        sliding_window: parse_sliding_window(keys, architecture)?,
        max_context: keys.size("max_position_embeddings")?,
        tied_embeddings: keys.flag("tie_word_embeddings")?,
    };
    config.validate()?;
    Ok(config)
}

fn parse_architecture(keys: &Keys<'_>) -> Result<Architecture, String> {
    let listed = keys.get("architectures").and_then(Value::as_array).and_then(|names| names.first());
    let (key, name) = match (listed, keys.get("model_type")) {
        (Some(name), _) => ("architectures", name),
        (None, Some(name)) => ("model_type", name),
        (None, None) => return Err("architectures is missing".to_owned()),
    };
    match name.as_str() {
        Some("MistralForCausalLM" | "mistral") => Ok(Architecture::Mistral),
        Some("LlamaForCausalLM" | "llama") => Ok(Architecture::Llama),
        _ => Err(format!("{key} is {name}; supported are MistralForCausalLM and LlamaForCausalLM")),
    }
}

fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), String> {
    for key in ["attention_bias", "mlp_bias"] {
        if keys.flag(key)? {
            return Err(format!("{key} is true; the model has no biases"));
        }
    }
    if keys.get("quantization_config").is_some() {
        return Err("quantization_config is set; supported are unquantised safetensors and GGUF".to_owned());
    }
    match keys.get("hidden_act") {
        None => {}
        Some(activation) if activation == "silu" => {}
        Some(activation) => return Err(format!("hidden_act is {activation}; supported is \"silu\"")),
    }
    for key in ["rope_scaling", "rope_parameters"] {
        if let Some(rope) = keys.table(key)? {
            refuse_scaled_rope(key, &rope)?;
        }
    }
    refuse_scaled_rope("config", keys)
}

/// Rotary embedding over whole heads, with plain frequencies, is all there is.
fn refuse_scaled_rope(parent: &str, rope: &Keys<'_>) -> Result<(), String> {
    for key in ["rope_type", "type"] {
        match rope.get(key) {
            None => {}
            Some(kind) if kind == "default" => {}
            Some(kind) => return Err(format!("{parent}.{key} is {kind}; rope scaling is not supported")),
        }
    }
    match rope.number("partial_rotary_factor")? {
        None | Some(1.0) => Ok(()),
        Some(factor) => Err(format!("{parent}.partial_rotary_factor is {factor}; supported is 1")),
    }
}

/// Transformers 4 writes `rope_theta`, transformers 5 `rope_parameters.rope_theta`; both take 10000 where
/// neither is given.
fn parse_rope_theta(keys: &Keys<'_>) -> Result<f64, String> {
    if let Some(theta) = keys.number("rope_theta")? {
        return Ok(theta);
    }
    let nested = keys.table("rope_parameters")?;
    Ok(nested.map(|rope| rope.number("rope_theta")).transpose()?.flatten().unwrap_or(10_000.0))
}

/// Llama has no window, whatever the key says. An absent key is no window: every config that Mistral or
/// transformers wrote has it.
fn parse_sliding_window(keys: &Keys<'_>, architecture: Architecture) -> Result<Option<usize>, String> {
    match architecture {
        Architecture::Mistral => keys.optional_size("sliding_window"),
        Architecture::Llama => Ok(None),
    }
}

/// A JSON table whose errors name the key; null is absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("{key} is missing"))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| format!("{key} is {value}, not a whole number"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| format!("{key} is {value}, not a number"))
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| format!("{key} is {value}, neither true nor false"))
    }

    fn table(&self, key: &str) -> Result<Option<Keys<'a>>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_object().map(|table| Some(Keys(table))).ok_or_else(|| format!("{key} is {value}, not a table"))
    }
}
