//! Models with random weights, for speed work and tests: any shape, no download.
//!
//! The same preset, format and seed give the same bytes. Weights are zero-mean with a deviation of 0.02 and
//! norms are 1, so that every activation stays finite; what such a model says is noise. Tensors are made
//! and written a piece at a time: memory does not grow with the model.

mod folder;
mod gguf;
mod random;
mod vocabulary;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

#[cfg(feature = "cuda")]
pub(crate) use random::Random;

use crate::loader::{ModelConfig, RopeLayout, WeightName};

/// The shape of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Two layers of width 256: for tests.
    Tiny,
    /// 1.1 billion parameters.
    Billion,
    /// Mistral-7B-Instruct v0.3.
    Mistral7b,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Hugging Face folder with bf16 safetensors.
    Safetensors,
    /// A GGUF file with half-precision matrices.
    GgufF16,
    /// A GGUF file, 8 bits per weight.
    GgufQ8_0,
    /// A GGUF file with llama.cpp's `Q4_K_M` mixture of `Q4_K` and `Q6_K`.
    GgufQ4KM,
}

/// What may differ from the preset.
#[derive(Debug, Clone, Copy, Default)]
pub struct SynthOptions {
    /// Layers, where not the preset's.
    pub layers: Option<usize>,
    /// Seed of the weights.
    pub seed: u64,
}

/// A model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The options make no model.
    #[error("{0}")]
    Options(String),
    /// Nothing that exists is overwritten.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Writing failed.
    #[error("cannot write {}", path.display())]
    Io {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Preset {
    /// The sizes of the preset.
    pub fn config(self) -> ModelConfig {
        let tiny = ModelConfig {
            vocab_size: 512,
            hidden_size: 256,
            intermediate_size: 512,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 1e6,
            rope_layout: RopeLayout::HalfSplit,
            sliding_window: None,
            max_context: 32_768,
            tied_embeddings: false,
        };
        let billion = ModelConfig {
            vocab_size: 32_768,
            hidden_size: 2048,
            intermediate_size: 8192,
            layers: 16,
            heads: 32,
            kv_heads: 8,
            ..tiny.clone()
        };
        match self {
            Self::Tiny => tiny,
            Self::Billion => billion,
            Self::Mistral7b => {
                ModelConfig { hidden_size: 4096, intermediate_size: 14_336, layers: 32, head_dim: 128, ..billion }
            }
        }
    }
}

/// Bytes that the model's weights take; the files are longer by a header and a tokenizer.
pub fn size(preset: Preset, format: Format, options: SynthOptions) -> Result<u64, SynthError> {
    let config = config(preset, options)?;
    Ok(tensors(&config, format).map(|tensor| tensor.bytes()).sum())
}

/// Writes a model to `path`: a folder for safetensors, else a file. Nothing is there before it is whole.
pub fn write(preset: Preset, format: Format, path: &Path, options: SynthOptions) -> Result<(), SynthError> {
    let config = config(preset, options)?;
    if path.exists() {
        return Err(SynthError::Exists(path.to_owned()));
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let io = |source| SynthError::Io { path: part.clone(), source };
    match format {
        Format::Safetensors => folder::write(&part, &config, options.seed).map_err(io)?,
        _ => gguf::write(&part, &config, format, options.seed).map_err(io)?,
    }
    std::fs::rename(&part, path).map_err(|source| SynthError::Io { path: path.to_owned(), source })
}

fn config(preset: Preset, options: SynthOptions) -> Result<ModelConfig, SynthError> {
    let mut config = preset.config();
    config.layers = options.layers.unwrap_or(config.layers);
    config.validate().map_err(SynthError::Options)?;
    Ok(config)
}

/// How the numbers of one written tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// All 1: a norm.
    Ones,
    Bf16,
    F16,
    Q8_0,
    Q4K,
    Q6K,
}

impl Storage {
    /// Numbers in a block and the block's bytes.
    fn block(self) -> (u64, u64) {
        match self {
            Self::Ones => (1, 4),
            Self::Bf16 | Self::F16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }
}

/// A tensor to be written.
#[derive(Debug)]
struct Planned {
    name: WeightName,
    shape: Vec<usize>,
    storage: Storage,
}

impl Planned {
    fn bytes(&self) -> u64 {
        let (numbers, bytes) = self.storage.block();
        self.shape.iter().map(|&n| n as u64).product::<u64>() / numbers * bytes
    }

    /// Writes the numbers; the stream depends on the seed and on the tensor's place in the model.
    fn write(&self, seed: u64, index: usize, out: &mut File) -> io::Result<()> {
        const PIECE: usize = 1 << 20;
        let mut random = random::Random::new(seed, index as u64);
        let fill = random::Fill::new(self.storage);
        let block = self.storage.block().1 as usize;
        let mut piece = vec![0; PIECE / block * block];
        let mut left = self.bytes();
        while left > 0 {
            let length = left.min(piece.len() as u64) as usize;
            fill.fill(&mut piece[..length], &mut random);
            out.write_all(&piece[..length])?;
            left -= length as u64;
        }
        Ok(())
    }
}

/// The model's tensors, in the order they are written.
fn tensors(config: &ModelConfig, format: Format) -> impl Iterator<Item = Planned> {
    WeightName::all(config).map(move |name| {
        let shape = name.shape(config);
        let storage = match (shape.len(), format) {
            (1, _) => Storage::Ones,
            (_, Format::Safetensors) => Storage::Bf16,
            (_, Format::GgufF16) => Storage::F16,
            (_, Format::GgufQ8_0) => Storage::Q8_0,
            (_, Format::GgufQ4KM) => gguf::mixture(name, config.layers),
        };
        Planned { name, shape, storage }
    })
}
