//! `gateway model list | pull | synth`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use engine::synth::{self, Format, Preset, SynthOptions};

use super::{Directories, Hub, Patience, Progress, Puller, Source, disk, progress::Bytes};

/// Look after the models on this machine.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Show the models that are here and those that can be pulled by name.
    List,
    /// Fetch a model; a pull that was interrupted continues. Gated models need HF_TOKEN.
    Pull {
        /// A name from `list`, or owner/repository[:file.gguf].
        name: String,
        /// The Hub to fetch from.
        #[arg(long, env = "HF_ENDPOINT", default_value = "https://huggingface.co")]
        endpoint: String,
    },
    /// Write a model with random weights, for speed work: it answers noise.
    Synth {
        /// The shape.
        preset: PresetName,
        /// The format.
        #[arg(long, value_enum, default_value_t = FormatName::Q4KM)]
        format: FormatName,
        /// Layers, where not the preset's.
        #[arg(long)]
        layers: Option<usize>,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Where to write it; in the models folder by default.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// A shape by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PresetName {
    /// Two layers, for tests.
    Tiny,
    /// 1.1 billion parameters.
    #[value(name = "1b")]
    Billion,
    /// Mistral-7B-Instruct v0.3.
    #[value(name = "mistral-7b")]
    Mistral7b,
}

/// A format by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// A Hugging Face folder, bf16.
    Safetensors,
    /// GGUF, half precision.
    F16,
    /// GGUF, 8 bits.
    #[value(name = "q8_0")]
    Q8_0,
    /// GGUF, llama.cpp's 4-bit mixture.
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Tiny => Self::Tiny,
            PresetName::Billion => Self::Billion,
            PresetName::Mistral7b => Self::Mistral7b,
        }
    }
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Safetensors => Self::Safetensors,
            FormatName::F16 => Self::GgufF16,
            FormatName::Q8_0 => Self::GgufQ8_0,
            FormatName::Q4KM => Self::GgufQ4KM,
        }
    }
}

impl ModelCommand {
    /// Does it; results go to standard output, progress to standard error.
    pub async fn run(self) -> anyhow::Result<()> {
        let directories = Directories::from_environment();
        match self {
            Self::List => {
                print!("{}", list(&directories));
                Ok(())
            }
            Self::Pull { name, endpoint } => pull(&directories, &name, &endpoint).await,
            Self::Synth { preset, format, layers, seed, out } => {
                let name = format!("synth-{}-{}", value_name(preset), value_name(format));
                let file = if format == FormatName::Safetensors { name } else { format!("{name}.gguf") };
                let out = out.unwrap_or_else(|| directories.store().join(file));
                let options = SynthOptions { layers, seed };
                tokio::task::spawn_blocking(move || write(preset.into(), format.into(), options, out)).await?
            }
        }
    }
}

fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn list(directories: &Directories) -> String {
    let present = directories.present();
    let mut lines = format!("{:<32} {:>10}  {}\n", "NAME", "SIZE", "WHERE");
    for model in &present {
        lines += &format!("{:<32} {:>10}  {}\n", model.name, Bytes(model.bytes).to_string(), model.path.display());
    }
    for known in Source::known().filter(|known| present.iter().all(|model| model.name != known.name)) {
        lines += &format!("{:<32} {:>10}  gateway model pull {}\n", known.name, "-", known.name);
    }
    lines
}

async fn pull(directories: &Directories, name: &str, endpoint: &str) -> anyhow::Result<()> {
    let source = Source::parse(name)?;
    let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty());
    let hub = Hub::new(endpoint, token.as_deref())?;
    let puller = Puller { hub, patience: Patience::default(), progress: Progress::Shown };
    let folder = puller.pull(&source, directories.store()).await?;
    println!("{}", folder.display());
    Ok(())
}

fn write(preset: Preset, format: Format, options: SynthOptions, out: PathBuf) -> anyhow::Result<()> {
    let bytes = synth::size(preset, format, options)?;
    disk::check_space(&out, bytes)?;
    if let Some(parent) = out.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    synth::write(preset, format, &out, options)?;
    println!("{}", out.display());
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: ModelCommand,
    }

    #[test]
    fn the_commands_are_read_as_documented() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["model", "synth", "mistral-7b", "--format", "q8_0", "--layers", "4"]).unwrap();
        let ModelCommand::Synth { preset, format, layers, seed, out } = cli.command else { panic!("{cli:?}") };
        assert_eq!((preset, format), (PresetName::Mistral7b, FormatName::Q8_0));
        assert_eq!((layers, seed, out), (Some(4), 0, None));
        Cli::try_parse_from(["model", "list"]).unwrap();
        Cli::try_parse_from(["model", "pull", "mistral-7b"]).unwrap();
        Cli::try_parse_from(["model", "synth", "13b"]).unwrap_err();
    }

    #[test]
    fn the_list_shows_what_is_here_and_what_can_be_pulled() {
        let temp = tempfile::TempDir::new().unwrap();
        write(Preset::Tiny, Format::GgufQ4KM, SynthOptions::default(), temp.path().join("new/made.gguf")).unwrap();
        let text = list(&Directories::new(temp.path().join("new"), []));
        assert!(text.contains("made ") && text.contains("905.0 kB"), "{text}");
        assert!(text.contains("gateway model pull mistral-7b-q4"), "{text}");
    }
}
