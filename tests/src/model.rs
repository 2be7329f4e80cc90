//! A Mistral of two layers with random weights: it says nothing sensible, quickly, and goes on for long.

use std::{io::Write, path::Path};

use anyhow::Context;
use serde_json::{Map, Value, json};

const HIDDEN: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const FEED_FORWARD: usize = 96;
/// As many as the tokenizer beside the engine's goldens has.
const VOCABULARY: usize = 600;

/// Tokens of prompt and answer together: enough for an answer to outlast any test that wants to break it off.
pub const CONTEXT: usize = 32_768;

/// Writes the model into `folder`.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/goldens/tokenizer/tokenizer.json");
    std::fs::copy(&tokenizer, folder.join("tokenizer.json")).with_context(|| tokenizer.display().to_string())?;
    let config = json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "sliding_window": 256, "tie_word_embeddings": false, "torch_dtype": "float32",
        "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    write_weights(&folder.join("model.safetensors"))
}

/// Writes it with a last layer that is no numbers: whatever is asked, the answer fails.
pub fn write_broken(folder: &Path) -> anyhow::Result<()> {
    write(folder)?;
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path)?;
    let last = bytes.len() - VOCABULARY * HIDDEN * size_of::<f32>();
    for number in bytes[last..].chunks_exact_mut(size_of::<f32>()) {
        number.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    Ok(std::fs::write(path, bytes)?)
}

fn tensors() -> Vec<(String, Vec<usize>)> {
    let kv = HIDDEN / HEADS * KV_HEADS;
    let mut tensors = vec![("model.embed_tokens".to_owned(), vec![VOCABULARY, HIDDEN])];
    for layer in 0..LAYERS {
        let parts: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.up_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FEED_FORWARD]),
        ];
        tensors.extend(parts.into_iter().map(|(part, shape)| (format!("model.layers.{layer}.{part}"), shape)));
    }
    tensors.push(("model.norm".to_owned(), vec![HIDDEN]));
    tensors.push(("lm_head".to_owned(), vec![VOCABULARY, HIDDEN]));
    tensors
}

/// The safetensors format: the header's length, the header, the numbers.
fn write_weights(path: &Path) -> anyhow::Result<()> {
    let mut header = Map::new();
    let mut numbers = Vec::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (name, shape) in tensors() {
        let start = numbers.len();
        for _ in 0..shape.iter().product() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let random = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let value = if shape.len() == 1 { 1.0 } else { random * 0.5 };
            numbers.extend(f32::to_le_bytes(value));
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, numbers.len()]});
        header.insert(format!("{name}.weight"), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = std::fs::File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.write_all(&numbers)?;
    Ok(())
}
