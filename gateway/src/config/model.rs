//! Which model is served, and how it is loaded.

use std::path::Path;

use engine::{DeviceChoice, Quantization};
use serde::{Deserialize, Serialize};

use super::Violation;

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// A known model's name, a Hugging Face folder, or a `.gguf` file.
    pub name: String,
    /// Further names under which requests may ask for it.
    pub aliases: Vec<String>,
    /// Where to compute.
    pub device: DeviceName,
    /// Quantise the linear layers while loading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<QuantizeName>,
}

/// `--device`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceName {
    /// The best there is.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

/// `--quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum QuantizeName {
    /// 8 bits per weight.
    #[serde(rename = "q8_0")]
    #[value(name = "q8_0")]
    Q8_0,
    /// 4.5 bits per weight.
    #[serde(rename = "q4_k")]
    #[value(name = "q4_k")]
    Q4K,
    /// 8-bit floating-point numbers, on a GPU.
    #[serde(rename = "fp8")]
    #[value(name = "fp8")]
    Fp8,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { name: "demo".to_owned(), aliases: Vec::new(), device: DeviceName::Auto, quantize: None }
    }
}

impl ModelSettings {
    /// The name under which it is served: as it was asked for, a path by its last part.
    pub fn served_name(&self) -> &str {
        let path = Path::new(&self.name);
        let last = match path.extension() {
            Some(extension) if extension == "gguf" => path.file_stem(),
            _ => path.file_name(),
        };
        last.and_then(|name| name.to_str()).unwrap_or(&self.name)
    }

    /// Whether a request for `name` means this model.
    pub fn answers_to(&self, name: &str) -> bool {
        name == self.served_name() || name == self.name || self.aliases.iter().any(|alias| alias == name)
    }

    /// How the engine is to load it.
    pub fn load_options(&self) -> engine::loader::LoadOptions {
        engine::loader::LoadOptions {
            device: match self.device {
                DeviceName::Auto => DeviceChoice::Auto,
                DeviceName::Cpu => DeviceChoice::Cpu,
                DeviceName::Cuda => DeviceChoice::Cuda,
            },
            quantize: self.quantize.map(|quantize| match quantize {
                QuantizeName::Q8_0 => Quantization::Q8_0,
                QuantizeName::Q4K => Quantization::Q4K,
                QuantizeName::Fp8 => Quantization::Fp8,
            }),
        }
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.name.trim().is_empty() {
            return Err(("model.name", "is empty".to_owned()));
        }
        match self.aliases.iter().any(|alias| alias.trim().is_empty()) {
            true => Err(("model.aliases", "contains an empty name".to_owned())),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_served_by_its_last_part() {
        for (name, served) in [
            ("demo", "demo"),
            ("/m/demo/", "demo"),
            ("m/x.Q4_K_M.gguf", "x.Q4_K_M"),
            ("mistral-7b-v0.3", "mistral-7b-v0.3"),
        ] {
            let settings =
                ModelSettings { name: name.to_owned(), aliases: vec!["gpt".to_owned()], ..Default::default() };
            assert_eq!(settings.served_name(), served);
            assert!([name, served, "gpt"].iter().all(|asked| settings.answers_to(asked)));
            assert!(!settings.answers_to("other"));
        }
    }
}
