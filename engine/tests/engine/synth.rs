//! Synthetic models: deterministic, finite, centred, and with the mixture that llama.cpp gives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, gguf_file},
};
use engine::{
    loader::{Dtype, LayerWeight, LoadOptions, WeightName, load},
    synth::{Format, Preset, SynthError, SynthOptions, size, write},
};
use tempfile::TempDir;

fn synth(path: &Path, format: Format, seed: u64) {
    write(Preset::Tiny, format, path, SynthOptions { layers: None, seed }).unwrap();
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let temp = TempDir::new().unwrap();
    let bytes = |name: &str, seed| {
        let path = temp.path().join(name);
        synth(&path, Format::GgufQ4KM, seed);
        fs::read(path).unwrap()
    };
    assert!(bytes("a.gguf", 1) == bytes("b.gguf", 1));
    assert!(bytes("a2.gguf", 1) != bytes("c.gguf", 2));
}

#[test]
fn every_format_is_finite_centred_and_as_large_as_announced() {
    for format in [Format::GgufF16, Format::GgufQ8_0, Format::GgufQ4KM] {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("tiny.gguf");
        synth(&path, format, 0);
        let mut file = fs::File::open(&path).unwrap();
        let content = gguf_file::Content::read(&mut file).unwrap();
        for name in content.tensor_infos.keys().filter(|name| !name.contains("norm")) {
            let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
            check_numbers(name, format, &tensor);
        }
        let model = load(&path, LoadOptions::default()).unwrap();
        let bytes = |name| model.weights.get(name).unwrap().bytes().len() as u64;
        let bytes: u64 = WeightName::all(&model.config).map(bytes).sum();
        assert_eq!(bytes, size(Preset::Tiny, format, SynthOptions::default()).unwrap());
    }
}

fn check_numbers(name: &str, format: Format, tensor: &Tensor) {
    let numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    assert!(numbers.iter().all(|number| number.is_finite()), "{name}");
    let count = numbers.len() as f64;
    let mean = numbers.iter().map(|&number| f64::from(number)).sum::<f64>() / count;
    let variance = numbers.iter().map(|&number| f64::from(number).powi(2)).sum::<f64>() / count - mean * mean;
    assert!(mean.abs() < 5e-4, "{name} {format:?}: mean {mean}");
    assert!((0.018..0.022).contains(&variance.sqrt()), "{name} {format:?}: deviation {}", variance.sqrt());
}

#[test]
fn q4_k_m_gives_more_bits_where_llama_cpp_does() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("deep.gguf");
    let options = SynthOptions { layers: Some(16), seed: 0 };
    write(Preset::Tiny, Format::GgufQ4KM, &path, options).unwrap();
    let model = load(&path, LoadOptions::default()).unwrap();
    let has_more = |name| match model.weights.get(name).unwrap().dtype {
        Dtype::Quantized(GgmlDType::Q6K) => true,
        Dtype::Quantized(GgmlDType::Q4K) => false,
        other => panic!("{name:?} is {other:?}"),
    };
    let layers = |weight| (0..16).filter(|&layer| has_more(WeightName::Layer(layer, weight))).collect::<Vec<_>>();
    assert_eq!(layers(LayerWeight::Value), [0, 1, 4, 7, 10, 13, 14, 15]);
    assert_eq!(layers(LayerWeight::Down), [0, 1, 4, 7, 10, 13, 14, 15]);
    assert!(layers(LayerWeight::Key).is_empty());
    assert!(has_more(WeightName::Output));
    assert!(!has_more(WeightName::Embedding));
}

#[test]
fn a_mistral_7b_has_the_size_that_is_expected() {
    let bytes = |format| size(Preset::Mistral7b, format, SynthOptions::default()).unwrap() as f64 / 1e9;
    assert!((4.3..4.45).contains(&bytes(Format::GgufQ4KM)), "{}", bytes(Format::GgufQ4KM));
    assert!((14.4..14.6).contains(&bytes(Format::Safetensors)), "{}", bytes(Format::Safetensors));
}

#[test]
fn the_tokenizer_spells_any_text() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("tiny");
    synth(&path, Format::Safetensors, 0);
    let tokenizer = tokenizers::Tokenizer::from_file(path.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), 512);
    for text in ["hello world", "What is TTFT?", "naïve 🦀\n\ttabs", "  two  spaces "] {
        let encoding = tokenizer.encode(text, true).unwrap();
        assert_eq!(encoding.get_ids()[0], 1);
        assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), text);
    }
}

#[test]
fn nothing_is_overwritten_and_no_impossible_model_is_written() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("taken.gguf");
    fs::write(&path, b"mine").unwrap();
    let error = write(Preset::Tiny, Format::GgufF16, &path, SynthOptions::default()).unwrap_err();
    assert!(matches!(error, SynthError::Exists(_)), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let none = SynthOptions { layers: Some(0), seed: 0 };
    let error = write(Preset::Tiny, Format::GgufF16, &temp.path().join("none.gguf"), none).unwrap_err();
    assert!(error.to_string().contains("layers 0"), "{error}");
}
