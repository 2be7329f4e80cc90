//! The GGUF file: metadata, tensor infos, then the tensors.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use super::{Format, Planned, Storage, tensors, vocabulary};
use crate::loader::{self, LayerWeight, ModelConfig, WeightName};

const ALIGNMENT: u64 = 32;

/// The storage that llama.cpp's `Q4_K_M` gives a matrix: more bits for the output and, in some layers, for
/// the values and the second feed-forward matrix.
pub(super) fn mixture(name: WeightName, layers: usize) -> Storage {
    match name {
        WeightName::Output => Storage::Q6K,
        WeightName::Layer(layer, LayerWeight::Value | LayerWeight::Down) if has_more_bits(layer, layers) => {
            Storage::Q6K
        }
        _ => Storage::Q4K,
    }
}

/// The first and the last eighth of the layers, and every third between.
fn has_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

pub(super) fn write(path: &Path, config: &ModelConfig, format: Format, seed: u64) -> io::Result<()> {
    let planned: Vec<Planned> = tensors(config, format).collect();
    let mut header = metadata(config, format, planned.len() as u64);
    let mut offset = 0;
    for tensor in &planned {
        header.text(&loader::gguf_name(tensor.name));
        header.0.extend((tensor.shape.len() as u32).to_le_bytes());
        // The row's length comes first.
        tensor.shape.iter().rev().for_each(|&n| header.0.extend((n as u64).to_le_bytes()));
        header.0.extend(type_id(tensor.storage).to_le_bytes());
        header.0.extend(u64::to_le_bytes(offset));
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    let mut file = File::create(path)?;
    file.write_all(&header.0)?;
    pad(&mut file, header.0.len() as u64)?;
    for (index, tensor) in planned.iter().enumerate() {
        tensor.write(seed, index, &mut file)?;
        pad(&mut file, tensor.bytes())?;
    }
    file.sync_all()
}

fn pad(file: &mut File, written: u64) -> io::Result<()> {
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    file.write_all(&[0; ALIGNMENT as usize][..missing as usize])
}

fn type_id(storage: Storage) -> u32 {
    match storage {
        Storage::Ones => 0,
        Storage::F16 => 1,
        Storage::Q8_0 => 8,
        Storage::Q4K => 12,
        Storage::Q6K => 14,
        Storage::Bf16 => 30,
    }
}

fn metadata(config: &ModelConfig, format: Format, tensors: u64) -> Header {
    let tokens = vocabulary::tokens(config.vocab_size);
    let words = tokens.len() - vocabulary::FIRST_WORD;
    let scores = (0..tokens.len()).map(|id| -(id.saturating_sub(vocabulary::FIRST_WORD) as f32));
    // 1 normal, 2 unknown, 3 control, 6 byte.
    let types = [2, 3, 3].into_iter().chain([6; 256]).chain(std::iter::repeat_n(1, words));
    let file_type = match format {
        Format::GgufQ4KM => 15,
        Format::GgufQ8_0 => 7,
        Format::GgufF16 | Format::Safetensors => 1,
    };
    let mut entries = Entries::default();
    entries.text("general.architecture", "llama");
    entries.text("general.name", "synthetic");
    entries.number("general.file_type", file_type);
    entries.number("general.quantization_version", 2);
    entries.number("llama.context_length", config.max_context as u32);
    entries.number("llama.embedding_length", config.hidden_size as u32);
    entries.number("llama.block_count", config.layers as u32);
    entries.number("llama.feed_forward_length", config.intermediate_size as u32);
    entries.number("llama.attention.head_count", config.heads as u32);
    entries.number("llama.attention.head_count_kv", config.kv_heads as u32);
    entries.number("llama.attention.key_length", config.head_dim as u32);
    entries.number("llama.attention.value_length", config.head_dim as u32);
    entries.number("llama.rope.dimension_count", config.head_dim as u32);
    entries.number("llama.vocab_size", config.vocab_size as u32);
    entries.float("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    entries.float("llama.rope.freq_base", config.rope_theta);
    entries.text("tokenizer.ggml.model", "llama");
    entries.array("tokenizer.ggml.tokens", TEXT, tokens.len(), |out| tokens.iter().for_each(|token| out.text(token)));
    entries.array("tokenizer.ggml.scores", F32, tokens.len(), |out| out.0.extend(scores.flat_map(f32::to_le_bytes)));
    entries.array("tokenizer.ggml.token_type", I32, tokens.len(), |out| out.0.extend(types.flat_map(i32::to_le_bytes)));
    entries.number("tokenizer.ggml.unknown_token_id", 0);
    entries.number("tokenizer.ggml.bos_token_id", 1);
    entries.number("tokenizer.ggml.eos_token_id", 2);
    entries.finish(tensors)
}

// The format's ids of value types.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a header.
#[derive(Default)]
struct Header(Vec<u8>);

impl Header {
    fn text(&mut self, text: &str) {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
    }
}

/// Metadata entries, counted.
#[derive(Default)]
struct Entries {
    count: u64,
    bytes: Header,
}

impl Entries {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        self.bytes.text(key);
        self.bytes.0.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, TEXT);
        self.bytes.text(value);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, U32);
        self.bytes.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, F32);
        self.bytes.0.extend(value.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, length: usize, write: impl FnOnce(&mut Header)) {
        self.key(key, ARRAY);
        self.bytes.0.extend(kind.to_le_bytes());
        self.bytes.0.extend((length as u64).to_le_bytes());
        write(&mut self.bytes);
    }

    fn finish(self, tensors: u64) -> Header {
        let mut header = Header(b"GGUF".to_vec());
        header.0.extend(3u32.to_le_bytes());
        header.0.extend(tensors.to_le_bytes());
        header.0.extend(self.count.to_le_bytes());
        header.0.extend(self.bytes.0);
        header
    }
}
