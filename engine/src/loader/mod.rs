//! Configuration, weights and text of a model, from a Hugging Face folder or a GGUF file.
//!
//! Weights stay in the mapped file ([`Tensor`] holds a range of it) and are named by their role
//! ([`WeightName`]), so the model never sees a format's own names. Nothing in a file is trusted: sizes are
//! checked against the file's length before anything is allocated.

pub mod config;
mod gguf;
mod huggingface;
mod map;
mod safetensors;
pub mod weights;

use std::path::Path;

pub use config::{ModelConfig, RopeLayout};
pub(crate) use gguf::spelling as gguf_name;
pub(crate) use huggingface::spelling as huggingface_name;
pub use weights::{Dtype, LayerWeight, Tensor, WeightName, Weights};

use crate::{
    device::{Device, DeviceChoice},
    error::LoadError,
    text::Text,
};

/// Weights to quantise while loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// 8 bits per weight in blocks of 32.
    Q8_0,
    /// 4.5 bits per weight in super-blocks of 256.
    Q4K,
    /// 8-bit floating-point numbers (e4m3) with a scale for each output; on GPUs only.
    Fp8,
}

/// How to load.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Quantise the linear layers; `None` keeps what the file has.
    pub quantize: Option<Quantization>,
    /// Where to compute.
    pub device: DeviceChoice,
}

/// Everything read from a model's files.
#[derive(Debug)]
pub struct LoadedModel {
    /// The file's or folder's name.
    pub name: String,
    /// The architecture's sizes.
    pub config: ModelConfig,
    /// The weights, still in their files.
    pub weights: Weights,
    /// Tokenizer and chat template.
    pub text: Text,
    /// Quantise the linear layers to this.
    pub quantize: Option<Quantization>,
    /// Where it is computed.
    pub device: Device,
}

/// Configuration and weights alone, for those who bring their own token ids.
pub fn open_weights(path: &Path) -> Result<(ModelConfig, Weights), LoadError> {
    match source(path)? {
        Source::HuggingFace => huggingface::open(path),
        Source::Gguf => gguf::open(path).map(|(config, weights, _)| (config, weights)),
    }
}

/// Loads a model from a Hugging Face folder or a `.gguf` file.
///
/// Weights are mapped, not read: this takes the time of the headers and of the tokenizer.
pub fn load(path: &Path, options: LoadOptions) -> Result<LoadedModel, LoadError> {
    let device = options.device.open()?;
    device.check(options.quantize)?;
    let (config, weights, text) = match source(path)? {
        Source::HuggingFace => {
            let (config, weights) = huggingface::open(path)?;
            (config, weights, Text::from_huggingface(path)?)
        }
        Source::Gguf => {
            let (config, weights, vocabulary) = gguf::open(path)?;
            (config, weights, Text::from_gguf(path, vocabulary)?)
        }
    };
    Ok(LoadedModel { name: name(path), config, weights, text, quantize: options.quantize, device })
}

/// The two kinds of model there are on disk.
enum Source {
    HuggingFace,
    Gguf,
}

fn source(path: &Path) -> Result<Source, LoadError> {
    let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
    if metadata.is_dir() {
        Ok(Source::HuggingFace)
    } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        Ok(Source::Gguf)
    } else {
        Err(LoadError::invalid(path, "is neither a folder with config.json nor a .gguf file"))
    }
}

/// The folder's name or the file's without its ending; `.` and `..` are resolved first.
fn name(path: &Path) -> String {
    let canonical = path.canonicalize();
    // A link's own name is what its owner calls the model, so only a path without a name is resolved.
    let named = if path.file_name().is_some() { path } else { canonical.as_deref().unwrap_or(path) };
    let name = if path.is_dir() { named.file_name() } else { named.file_stem() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
