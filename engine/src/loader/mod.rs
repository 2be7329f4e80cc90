//! Configuration, weights and text of a model, from a Hugging Face folder or a GGUF file.
//!
//! Weights stay in the mapped file ([`Tensor`] holds a range of it) and are named by their role
//! ([`WeightName`]), so the model never sees a format's own names. Nothing in a file is trusted: sizes are
//! checked against the file's length before anything is allocated.

pub mod config;
pub mod weights;

use std::path::Path;

pub use config::{ModelConfig, RopeLayout};
pub use weights::{Dtype, LayerWeight, Tensor, WeightName, Weights};

use crate::{device::DeviceChoice, error::LoadError, text::Text};

/// Weights to quantise while loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// 8 bits per weight in blocks of 32.
    Q8_0,
    /// 4.5 bits per weight in super-blocks of 256.
    Q4K,
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
    /// How to place them.
    pub options: LoadOptions,
}

/// Loads a model from a Hugging Face folder or a `.gguf` file.
pub fn load(path: &Path, options: LoadOptions) -> Result<LoadedModel, LoadError> {
    let _ = (path, options);
    todo!("loader")
}
