//! Quantised GGUF files against candle's own `quantized_llama`, one sequence at a time.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{collections::HashMap, fs::File, io::BufWriter, path::Path, sync::Arc};

use candle_core::{
    DType, Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use candle_transformers::models::quantized_llama::ModelWeights;

use engine::{
    kernels::cpu::{KvDtype, Threads},
    loader::open_weights,
    model::mistral::Placed,
};

use crate::goldens::{Bench, argmax, folder, log_softmax};

/// Rotary pairs side by side, as in GGUF: rows i and i + half of each head become neighbours.
fn interleave(weights: &Tensor, heads: usize) -> Tensor {
    let (rows, columns) = weights.dims2().unwrap();
    let halves = weights.reshape((heads, 2, rows / heads / 2, columns)).unwrap();
    halves.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, columns)).unwrap()
}

fn gguf_name(name: &str) -> String {
    let name = name.trim_start_matches("model.");
    let renamed = [
        ("embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    let name = if name == "norm.weight" { "output_norm.weight" } else { name };
    renamed.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Writes the golden model of K-quant widths as GGUF with its matrices in `format`, stored as `stored`: either
/// the same, or f32 for the numbers that the blocks stand for.
fn write_gguf(format: GgmlDType, stored: GgmlDType, path: &Path) {
    let source = folder("k_quant_f16");
    let (config, _) = open_weights(&source).unwrap();
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(source.join("model.safetensors"), &Device::Cpu).unwrap();
    let quantized: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let tensor = tensor.to_dtype(DType::F32).unwrap();
            let tensor = match name {
                name if name.contains("q_proj") => interleave(&tensor, config.heads),
                name if name.contains("k_proj") => interleave(&tensor, config.kv_heads),
                _ => tensor,
            };
            let format = if tensor.rank() == 1 { GgmlDType::F32 } else { format };
            let blocks = QTensor::quantize(&tensor, format).unwrap();
            let blocks = match stored {
                GgmlDType::F32 => QTensor::quantize(&blocks.dequantize(&Device::Cpu).unwrap(), stored).unwrap(),
                _ => blocks,
            };
            (gguf_name(name), blocks)
        })
        .collect();
    let number = |value: usize| Value::U32(value as u32);
    let metadata = [
        ("general.architecture", Value::String("llama".to_owned())),
        ("llama.context_length", number(512)),
        ("llama.embedding_length", number(config.hidden_size)),
        ("llama.feed_forward_length", number(config.intermediate_size)),
        ("llama.block_count", number(config.layers)),
        ("llama.attention.head_count", number(config.heads)),
        ("llama.attention.head_count_kv", number(config.kv_heads)),
        ("llama.rope.dimension_count", number(config.head_dim)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps)),
        ("llama.rope.freq_base", Value::F32(config.rope_theta)),
        ("tokenizer.ggml.model", Value::String("llama".to_owned())),
        (
            "tokenizer.ggml.tokens",
            Value::Array((0..config.vocab_size).map(|id| Value::String(format!("t{id}"))).collect()),
        ),
        ("tokenizer.ggml.scores", Value::Array(vec![Value::F32(0.0); config.vocab_size])),
        ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); config.vocab_size])),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = quantized.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut BufWriter::new(File::create(path).unwrap()), &metadata, &tensors).unwrap();
}

/// candle's logits of the last of `tokens`, which follow `start` others.
fn candle_logits(model: &mut ModelWeights, tokens: &[u32], start: usize) -> Vec<f32> {
    let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    model.forward(&input, start).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference between two rows of logprobs.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    let pairs = log_softmax(ours).into_iter().zip(log_softmax(theirs));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Logits of short prompts, each in a fresh cache: its last position and one decoded token.
type Logits = Vec<[Vec<f32>; 2]>;

fn prompts() -> impl Iterator<Item = (usize, [u32; 3])> {
    (0..32).map(|index| (index, [1, 7 * index as u32 + 3, 251 - 5 * index as u32]))
}

fn candles(path: &Path) -> Logits {
    let mut file = File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let each = |(_, prompt): (usize, [u32; 3])| {
        let first = candle_logits(&mut model, &prompt, 0);
        let second = candle_logits(&mut model, &[argmax(&first)], prompt.len());
        [first, second]
    };
    prompts().map(each).collect()
}

/// Ours, for the tokens that `like` chose.
fn ours(path: &Path, like: &Logits) -> Logits {
    let (config, weights) = open_weights(path).unwrap();
    let threads = Arc::new(Threads::of_this_machine().unwrap());
    // candle keeps keys and values in f32.
    let placed = Placed::new(&config, &weights, None, threads).unwrap().with_kv_dtype(KvDtype::F32);
    let mut model = Bench::of(placed, prompts().count());
    let each = |(sequence, prompt): (usize, [u32; 3])| {
        let first = model.step(&[(sequence, &prompt)]).pop().unwrap();
        [first, model.step(&[(sequence, &[argmax(&like[sequence][0])])]).pop().unwrap()]
    };
    prompts().map(each).collect()
}

/// The largest differences of each row of logprobs, ascending.
fn differences(a: &Logits, b: &Logits) -> Vec<f32> {
    let mut all: Vec<f32> = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| difference(a, b)).collect();
    all.sort_by(f32::total_cmp);
    all
}

#[test]
fn every_format_agrees_with_candle() {
    let folder = tempfile::tempdir().unwrap();
    for format in [
        GgmlDType::F16,
        GgmlDType::Q4_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ] {
        let path = folder.path().join(format!("{format:?}.gguf"));
        write_gguf(format, format, &path);
        let candle = candles(&path);
        let differences = differences(&candle, &ours(&path, &candle));
        // Activations are quantised too: now and then the last bit of an f32 rounds one of them the other
        // way, which shows from there on. Otherwise there is nothing to show.
        assert!(differences[differences.len() / 2] < 1e-4, "{format:?}: {differences:?}");
        assert!(differences.last().unwrap() < &0.2, "{format:?}: {differences:?}");
    }
}

/// candle gives Q8_0 one scale for 256 activations where ours, as llama.cpp's, has one for 32: the exact numbers
/// are what both are measured by.
#[test]
fn eight_bits_are_as_close_to_the_exact_numbers_as_candles() {
    let folder = tempfile::tempdir().unwrap();
    let (path, exact) = (folder.path().join("q8_0.gguf"), folder.path().join("exact.gguf"));
    write_gguf(GgmlDType::Q8_0, GgmlDType::Q8_0, &path);
    write_gguf(GgmlDType::Q8_0, GgmlDType::F32, &exact);
    let exact = candles(&exact);
    let (ours, candles) = (differences(&exact, &ours(&path, &exact)), differences(&exact, &candles(&path)));
    let median = exact.len();
    // Which of the two is the closer one depends on the processor, by a few per cent.
    assert!(ours[median] < 1.1 * candles[median] && ours[median] < 0.1, "{ours:?} against {candles:?}");
    assert!(ours.last().unwrap() < &0.25, "{ours:?}");
}
