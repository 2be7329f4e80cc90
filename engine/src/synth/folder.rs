//! The Hugging Face folder: `config.json`, `model.safetensors`, `tokenizer.json`.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use serde_json::{Map, Value, json};

use super::{Format, Planned, Storage, tensors, vocabulary};
use crate::loader::{self, ModelConfig};

pub(super) fn write(folder: &Path, config: &ModelConfig, seed: u64) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    write_json(&folder.join("config.json"), &config_json(config))?;
    write_json(&folder.join("tokenizer.json"), &tokenizer_json(config.vocab_size))?;
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config_json())?;
    write_weights(&folder.join("model.safetensors"), config, seed)
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
}

fn write_weights(path: &Path, config: &ModelConfig, seed: u64) -> io::Result<()> {
    let planned: Vec<Planned> = tensors(config, Format::Safetensors).collect();
    let mut header = Map::new();
    let mut end = 0;
    for tensor in &planned {
        let begin = end;
        end += tensor.bytes();
        let dtype = if tensor.storage == Storage::Ones { "F32" } else { "BF16" };
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(loader::huggingface_name(tensor.name), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (index, tensor) in planned.iter().enumerate() {
        tensor.write(seed, index, &mut file)?;
    }
    file.sync_all()
}

fn config_json(config: &ModelConfig) -> Value {
    json!({
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "sliding_window": config.sliding_window,
        "max_position_embeddings": config.max_context,
        "tie_word_embeddings": config.tied_embeddings,
    })
}

fn tokenizer_config_json() -> Value {
    json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": true, "add_eos_token": false})
}

/// A byte-pair model with byte fallback, arranged as Mistral's own.
fn tokenizer_json(size: usize) -> Value {
    let tokens = vocabulary::tokens(size);
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added = vocabulary::SPECIALS.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let space = vocabulary::SPACE.to_string();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": space},
            {"type": "Replace", "pattern": {"String": " "}, "content": space},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": space}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary,
            "merges": vocabulary::merges(&tokens).iter().map(|(left, right)| [left, right]).collect::<Vec<_>>(),
        },
    })
}
