//! Hugging Face folders.

use std::{collections::HashMap, fs, path::Path};

use engine::{
    loader::{Dtype, LayerWeight, ModelConfig, RopeLayout, WeightName},
    synth::{Format, Preset},
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{assert_refused, good, tiny};

fn folder() -> (TempDir, std::path::PathBuf) {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("tiny");
    tiny(&path, Format::Safetensors);
    (temp, path)
}

/// Writes `config.json` with keys replaced; a null takes the key away.
fn edit_config(folder: &Path, edits: &Value) {
    let path = folder.join("config.json");
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in edits.as_object().unwrap() {
        if value.is_null() {
            config.remove(key);
        } else {
            config.insert(key.clone(), value.clone());
        }
    }
    fs::write(path, Value::Object(config).to_string()).unwrap();
}

/// Rewrites the weights through the safetensors crate: `edit` changes the list of name, shape and bytes.
fn rewrite(folder: &Path, edit: impl FnOnce(&mut Vec<(String, TensorView<'_>)>)) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    edit(&mut tensors);
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn a_folder_gives_configuration_and_the_bytes_that_the_safetensors_crate_reads() {
    let (_temp, path) = folder();
    let model = good(&path);
    assert_eq!(model.name, "tiny");
    assert_eq!(model.config, Preset::Tiny.config());
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let oracle = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<_> = WeightName::all(&model.config).collect();
    assert_eq!(names.len(), oracle.len());
    for name in names {
        let ours = model.weights.get(name).unwrap();
        let theirs = oracle.tensor(&ours.name).unwrap();
        assert_eq!((ours.shape.as_slice(), ours.bytes()), (theirs.shape(), theirs.data()));
    }
    let down = model.weights.get(WeightName::Layer(1, LayerWeight::Down)).unwrap();
    assert_eq!((down.name.as_str(), down.dtype), ("model.layers.1.mlp.down_proj.weight", Dtype::Bf16));
}

#[test]
fn transformers_spellings_of_the_configuration_are_understood() {
    type Holds = fn(&ModelConfig) -> bool;
    let cases: [(Value, Holds); 7] = [
        (json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}), |c| {
            c.rope_theta == 5e5
        }),
        (json!({"rope_theta": null}), |c| c.rope_theta == 10_000.0),
        (json!({"sliding_window": 128}), |c| c.sliding_window == Some(128)),
        (json!({"sliding_window": null}), |c| c.sliding_window.is_none()),
        (json!({"head_dim": null}), |c| c.head_dim == 64),
        (json!({"tie_word_embeddings": true}), |c| c.tied_embeddings),
        (json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "sliding_window": 5}), |c| {
            c.sliding_window.is_none() && c.rope_layout == RopeLayout::HalfSplit
        }),
    ];
    for (edits, holds) in cases {
        let (_temp, path) = folder();
        edit_config(&path, &edits);
        let config = good(&path).config;
        assert!(holds(&config), "{edits}: {config:?}");
    }
}

#[test]
fn an_impossible_or_unsupported_configuration_is_refused_by_its_key() {
    let cases = [
        (json!({"architectures": ["GPT2LMHeadModel"]}), "GPT2LMHeadModel"),
        (json!({"architectures": null, "model_type": null}), "architectures is missing"),
        (json!({"hidden_size": null}), "hidden_size is missing"),
        (json!({"num_key_value_heads": null}), "num_key_value_heads is missing"),
        (json!({"rms_norm_eps": null}), "rms_norm_eps is missing"),
        (json!({"vocab_size": "many"}), "vocab_size is \"many\""),
        (json!({"vocab_size": -1}), "vocab_size is -1"),
        (json!({"vocab_size": 1_u64 << 40}), "vocabulary size"),
        (json!({"num_hidden_layers": 100_000}), "number of layers 100000"),
        (json!({"num_attention_heads": 0}), "head"),
        (json!({"num_key_value_heads": 3}), "not a multiple of 3 kv heads"),
        (json!({"head_dim": 63}), "odd"),
        (json!({"hidden_size": u64::MAX}), "hidden size"),
        (json!({"sliding_window": 0}), "sliding window 0"),
        (json!({"rope_theta": 0}), "rope theta 0"),
        (json!({"rms_norm_eps": 1e300}), "epsilon"),
        (json!({"attention_bias": true}), "attention_bias"),
        (json!({"mlp_bias": true}), "mlp_bias"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope_scaling.type"),
        (json!({"rope_parameters": {"rope_type": "yarn"}}), "rope_parameters.rope_type"),
        (json!({"rope_parameters": 3}), "rope_parameters is 3"),
        (json!({"quantization_config": {"quant_method": "awq"}}), "quantization_config"),
    ];
    for (edits, words) in cases {
        let (_temp, path) = folder();
        edit_config(&path, &edits);
        assert_refused(&path, &["config.json", words]);
    }
}

#[test]
fn tensors_that_are_missing_misshapen_or_unknown_are_named() {
    let (_temp, path) = folder();
    rewrite(&path, |tensors| tensors.retain(|(name, _)| !name.contains("layers.1.self_attn")));
    assert_refused(
        &path,
        &["4 tensors are missing", "model.layers.1.self_attn.k_proj.weight", "layers.1.self_attn.o_proj"],
    );

    let (_temp, path) = folder();
    rewrite(&path, |tensors| {
        let bias = TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
        tensors.push(("model.layers.0.self_attn.q_proj.bias".to_owned(), bias));
    });
    assert_refused(&path, &["model.layers.0.self_attn.q_proj.bias is not part"]);

    let (_temp, path) = folder();
    edit_config(&path, &json!({"intermediate_size": 511}));
    assert_refused(&path, &["mlp.gate_proj.weight has shape [512, 256]", "[511, 256]"]);

    let (_temp, path) = folder();
    edit_config(&path, &json!({"num_hidden_layers": 1000}));
    assert_refused(&path, &["8982 tensors are missing", "model.layers.2.input_layernorm.weight", "..."]);
}

/// Splits the weights into two shards behind an index.
fn shard(folder: &Path) -> HashMap<String, String> {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let (first, second): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(name, _)| name.contains("layers.0"));
    let mut map = HashMap::new();
    for (shard, tensors) in [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)]
    {
        map.extend(tensors.iter().map(|(name, _)| (name.clone(), shard.to_owned())));
        fs::write(folder.join(shard), safetensors::serialize(tensors, None).unwrap()).unwrap();
    }
    fs::remove_file(path).unwrap();
    write_index(folder, &map);
    map
}

fn write_index(folder: &Path, map: &HashMap<String, String>) {
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_are_joined_and_a_consolidated_file_is_ignored() {
    let (_temp, path) = folder();
    let whole = good(&path);
    shard(&path);
    fs::write(path.join("consolidated.safetensors"), b"not read").unwrap();
    let sharded = good(&path);
    assert_eq!(sharded.weights.parameters(), whole.weights.parameters());
    for name in WeightName::all(&whole.config) {
        assert_eq!(sharded.weights.get(name).unwrap().bytes(), whole.weights.get(name).unwrap().bytes());
    }
}

#[test]
fn an_index_cannot_reach_outside_its_folder_or_promise_what_is_not_there() {
    for shard_name in ["../tiny/model-00001-of-00002.safetensors", "/etc/passwd", "..", "a/b.safetensors", ""] {
        let (_temp, path) = folder();
        let mut map = shard(&path);
        map.insert("model.norm.weight".to_owned(), shard_name.to_owned());
        write_index(&path, &map);
        assert_refused(&path, &["model.safetensors.index.json", "is not the name of a file beside it"]);
    }
    let (_temp, path) = folder();
    let mut map = shard(&path);
    map.insert("model.norm.weight".to_owned(), "model-00001-of-00002.safetensors".to_owned());
    write_index(&path, &map);
    assert_refused(&path, &["model-00001-of-00002.safetensors", "has no tensor model.norm.weight"]);

    map.insert("model.norm.weight".to_owned(), "absent.safetensors".to_owned());
    write_index(&path, &map);
    assert_refused(&path, &["cannot read", "absent.safetensors"]);
}

#[test]
fn a_path_that_holds_no_model_is_said_to() {
    let temp = TempDir::new().unwrap();
    assert_refused(&temp.path().join("absent"), &["cannot read"]);
    assert_refused(temp.path(), &["config.json"]);
    let file = temp.path().join("model.bin");
    fs::write(&file, b"weights").unwrap();
    assert_refused(&file, &["neither a folder with config.json nor a .gguf file"]);
    let (_temp, path) = folder();
    fs::remove_file(path.join("model.safetensors")).unwrap();
    assert_refused(&path, &["neither model.safetensors nor model.safetensors.index.json"]);
}

#[test]
fn a_folder_without_a_name_of_its_own_is_called_by_where_it_lies() {
    let (_temp, path) = folder();
    assert_eq!(good(&path.join("../tiny/.")).name, "tiny");
    assert_eq!(good(&path.join("..").join(".").join("tiny")).name, "tiny");
    let inner = path.join("inner");
    fs::create_dir(&inner).unwrap();
    assert_eq!(good(&inner.join("..")).name, "tiny");
}
