//! GGUF files: candle's reader and writer are the oracle.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use candle_core::{
    Device,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use engine::{
    loader::{Dtype, LayerWeight, RopeLayout, WeightName},
    synth::{Format, Preset},
};
use tempfile::TempDir;

use super::{assert_refused, good, tiny};

/// Candle's view of a GGUF file, to be changed and written again.
struct Parts {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, QTensor)>,
}

impl Parts {
    fn tiny(folder: &Path) -> Self {
        let path = folder.join("source.gguf");
        if !path.exists() {
            tiny(&path, Format::GgufQ8_0);
        }
        let mut file = BufReader::new(File::open(&path).unwrap());
        let content = gguf_file::Content::read(&mut file).unwrap();
        let names: Vec<_> = content.tensor_infos.keys().cloned().collect();
        let tensors = names
            .into_iter()
            .map(|name| (name.clone(), content.tensor(&mut file, &name, &Device::Cpu).unwrap()))
            .collect();
        Self { metadata: content.metadata.into_iter().collect(), tensors }
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.metadata.retain(|(key, _)| key != name);
        self.tensors.retain(|(key, _)| key != name);
        self
    }

    fn tensor(mut self, name: &str, tensor: QTensor) -> Self {
        self.tensors.retain(|(key, _)| key != name);
        self.tensors.push((name.to_owned(), tensor));
        self
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("changed.gguf");
        let metadata: Vec<_> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        path
    }
}

fn quantized(shape: (usize, usize), dtype: GgmlDType) -> QTensor {
    let values = candle_core::Tensor::rand(-1f32, 1., shape, &Device::Cpu).unwrap();
    QTensor::quantize(&values, dtype).unwrap()
}

#[test]
fn a_file_gives_configuration_and_the_bytes_that_candle_reads() {
    let temp = TempDir::new().unwrap();
    let parts = Parts::tiny(temp.path());
    let model = good(&temp.path().join("source.gguf"));
    assert_eq!(model.name, "source");
    let mut expected = Preset::Tiny.config();
    expected.rope_layout = RopeLayout::Interleaved;
    assert_eq!(model.config, expected);
    assert_eq!(WeightName::all(&expected).count(), parts.tensors.len());
    for name in WeightName::all(&expected) {
        let ours = model.weights.get(name).unwrap();
        let theirs = &parts.tensors.iter().find(|(name, _)| *name == ours.name).unwrap().1;
        assert_eq!(ours.shape, theirs.shape().dims());
        assert_eq!(ours.bytes(), &*theirs.data().unwrap());
    }
}

#[test]
fn every_supported_type_is_read_as_candle_wrote_it() {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let temp = TempDir::new().unwrap();
    for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
        let written = quantized((512, 256), dtype);
        let bytes = written.data().unwrap().into_owned();
        let path = Parts::tiny(temp.path()).tensor("blk.0.ffn_up.weight", written).write(temp.path());
        let model = good(&path);
        let up = model.weights.get(WeightName::Layer(0, LayerWeight::Up)).unwrap();
        let expected = match dtype {
            F32 => Dtype::F32,
            F16 => Dtype::F16,
            BF16 => Dtype::Bf16,
            other => Dtype::Quantized(other),
        };
        assert_eq!((up.dtype, up.bytes()), (expected, bytes.as_slice()), "{dtype:?}");
    }
}

#[test]
fn without_an_output_matrix_embeddings_are_tied_and_plain_rope_frequencies_are_ignored() {
    let temp = TempDir::new().unwrap();
    let ones = candle_core::Tensor::ones(32, candle_core::DType::F32, &Device::Cpu).unwrap();
    let path = Parts::tiny(temp.path())
        .without("output.weight")
        .tensor("rope_freqs.weight", QTensor::quantize(&ones, GgmlDType::F32).unwrap())
        .write(temp.path());
    let model = good(&path);
    assert!(model.config.tied_embeddings);
    assert!(model.weights.get(WeightName::Output).is_none());

    let scaled = QTensor::quantize(&(ones * 2.0).unwrap(), GgmlDType::F32).unwrap();
    let path = Parts::tiny(temp.path()).tensor("rope_freqs.weight", scaled).write(temp.path());
    assert_refused(&path, &["rope_freqs.weight", "not supported"]);
}

#[test]
fn an_unsupported_or_impossible_file_is_refused_by_its_key() {
    let text = |text: &str| Value::String(text.to_owned());
    let cases = [
        ("general.architecture", text("gemma"), "\"gemma\""),
        ("general.architecture", Value::U32(1), "general.architecture is 1"),
        ("general.alignment", Value::U32(33), "general.alignment is 33"),
        ("llama.rope.scaling.type", text("yarn"), "llama.rope.scaling.type is \"yarn\""),
        ("llama.rope.scaling.factor", Value::F32(4.0), "llama.rope.scaling.factor is 4"),
        ("llama.expert_count", Value::U32(8), "llama.expert_count is 8"),
        ("llama.rope.dimension_count", Value::U32(32), "llama.rope.dimension_count is 32"),
        ("llama.attention.value_length", Value::U32(32), "llama.attention.value_length is 32"),
        ("llama.block_count", Value::U64(u64::MAX), "number of layers"),
        ("llama.block_count", Value::U32(3), "9 tensors are missing: blk.2.attn_norm.weight"),
        ("llama.block_count", text("two"), "llama.block_count is \"two\""),
        ("llama.attention.head_count", Value::U32(0), "attention heads 0"),
        ("llama.attention.head_count_kv", Value::Array(vec![Value::U32(2), Value::U32(4)]), "head_count_kv"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "epsilon NaN"),
        ("llama.rope.freq_base", Value::F32(f32::INFINITY), "rope theta inf"),
        ("split.count", Value::U16(3), "one of 3 parts"),
        ("tokenizer.ggml.bos_token_id", text("x"), "tokenizer.ggml.bos_token_id is \"x\", not a token id"),
        ("tokenizer.ggml.scores", Value::Array(vec![Value::F32(0.0)]), "tokenizer.ggml.scores has 1 elements"),
        ("tokenizer.ggml.tokens", text("a b"), "tokenizer.ggml.tokens is \"a b\""),
    ];
    let temp = TempDir::new().unwrap();
    for (key, value, words) in cases {
        let path = Parts::tiny(temp.path()).set(key, value).write(temp.path());
        assert_refused(&path, &[words]);
    }
    for key in ["general.architecture", "llama.embedding_length", "tokenizer.ggml.tokens", "tokenizer.ggml.model"] {
        let path = Parts::tiny(temp.path()).without(key).write(temp.path());
        assert_refused(&path, &[key, "is missing"]);
    }
    let path = Parts::tiny(temp.path()).without("blk.1.attn_k.weight").write(temp.path());
    assert_refused(&path, &["1 tensors are missing: blk.1.attn_k.weight"]);
    let path = Parts::tiny(temp.path()).without("token_embd.weight").write(temp.path());
    assert_refused(&path, &["token_embd.weight is missing"]);
    let path =
        Parts::tiny(temp.path()).tensor("blk.0.attn_q.bias", quantized((1, 256), GgmlDType::F32)).write(temp.path());
    assert_refused(&path, &["blk.0.attn_q.bias is not part"]);
    let path = Parts::tiny(temp.path()).tensor("blk.0.ffn_up.weight", quantized((512, 256), GgmlDType::Q8K));
    assert_refused(&path.write(temp.path()), &["blk.0.ffn_up.weight", "Q8_K"]);
}

#[test]
fn the_vocabulary_may_be_smaller_than_the_embedding_but_not_larger() {
    let temp = TempDir::new().unwrap();
    let rows = |rows| quantized((rows, 256), GgmlDType::Q8_0);
    let padded = Parts::tiny(temp.path()).tensor("token_embd.weight", rows(520)).tensor("output.weight", rows(520));
    assert_eq!(good(&padded.write(temp.path())).config.vocab_size, 520);
    let short = Parts::tiny(temp.path()).tensor("token_embd.weight", rows(500)).tensor("output.weight", rows(500));
    assert_refused(&short.write(temp.path()), &["512 tokens for 500 embeddings"]);
}
