//! The options.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::bail;
use clap::{Parser, ValueEnum};
use engine::{Device, DeviceChoice, EngineConfig, KvType, Quantization, kernels::cpu::KvDtype};

/// The largest batch.
const MAX_BATCH: i64 = 1024;
/// Where a GPU computes longer prompts in several steps, unless told otherwise.
#[cfg(feature = "cuda")]
const GPU_STEP_TOKENS: usize = 8192;

/// Measures the engine's model: tokens per second, the share of the machine's memory bandwidth and peak of
/// operations that it makes use of, and its ratio to a peer that is measured in turns with it.
///
/// Both limits are measured on the same threads, or the same GPU, right before every row, since what a shared machine
/// gives changes; a row's shares are against those measured beside it. Bytes are those that a step cannot do
/// without: weights as stored, embedding rows, keys and values read and written. Operations are two per weight
/// and row of the linear layers; attention is not counted.
///
/// On a GPU, steps go through the engine's own executor, launched ahead of each other, and their tokens are drawn;
/// times are by the device's clock, and a column says in which share of the time the device waited for the host.
/// `floor` is how many tokens per second would reach the limit that is nearer, and how much of them is reached.
#[derive(Debug, Parser)]
#[command(name = "engine-bench", version)]
pub(crate) struct Args {
    /// A GGUF file or a Hugging Face folder.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// Prompt lengths: one prefill row each, and the context of the decode rows.
    #[arg(long, value_delimiter = ',', default_value = "128,512", value_parser = positive())]
    pub(crate) prompt: Vec<u32>,
    /// Sequences that decode together: a row for each with every prompt length.
    #[arg(long, value_delimiter = ',', default_value = "1,8,25,50", value_parser = clap::value_parser!(u32).range(1..=MAX_BATCH))]
    pub(crate) batch: Vec<u32>,
    /// Measured steps per decode row and round; prompts are computed up to three times.
    #[arg(long, default_value = "12", value_parser = positive())]
    pub(crate) steps: u32,
    /// Rounds, ours and the peer's in turns, when there is a peer.
    #[arg(long, default_value = "3", value_parser = positive())]
    pub(crate) rounds: u32,
    /// What computes; with `auto`, a GPU if there is one that this build can use.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceName,
    /// Positions of a step at most, where prompts are longer; by default 128 on the CPU, as the engine plans them, and
    /// on a GPU the longest prompt, but not more than 8192.
    #[arg(long)]
    step_tokens: Option<NonZeroUsize>,
    /// Threads that compute on the CPU; the cores there are by default.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Quantise linear layers while loading.
    #[arg(long, value_enum)]
    quantize: Option<QuantizeName>,
    /// How keys and values are stored; with --engine, or on a GPU, f16 or q8.
    #[arg(long, value_enum, default_value = "f16")]
    kv_type: KvName,
    /// Run the decode rows of the first prompt length through the whole engine, too, and show what a step costs
    /// besides the model.
    #[arg(long)]
    pub(crate) engine: bool,
    /// A shell command that measures another engine (`engine/peer/`), run after each of our rounds.
    ///
    /// It finds MODEL, THREADS, STEPS and the lists PROMPTS and BATCHES in its environment and prints lines like
    /// `pp512: 157.3 t/s` and `tg B=8 at 128: step 98.1 ms (81.55 tok/s)`, the best of its steps each. Without
    /// `at`, a line counts for every context. The ratio is the median over rounds of our best step by the peer's.
    #[arg(long, value_name = "CMD")]
    pub(crate) peer: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

impl Args {
    /// What is to compute.
    pub(crate) fn device(&self) -> DeviceChoice {
        match self.device {
            DeviceName::Auto => DeviceChoice::Auto,
            DeviceName::Cpu => DeviceChoice::Cpu,
            DeviceName::Cuda => DeviceChoice::Cuda,
        }
    }

    /// Positions of a step at most, on this device.
    pub(crate) fn step_tokens(&self, device: &Device) -> usize {
        self.step_tokens.map_or_else(
            || match device {
                Device::Cpu => EngineConfig::default().step_tokens(),
                #[cfg(feature = "cuda")]
                Device::Cuda(_) => self.longest_prompt().min(GPU_STEP_TOKENS),
            },
            usize::from,
        )
    }

    #[cfg(feature = "cuda")]
    fn longest_prompt(&self) -> usize {
        self.prompt.iter().max().map_or(1, |&prompt| prompt as usize)
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    /// What to quantise to while loading.
    pub(crate) fn quantize(&self) -> Option<Quantization> {
        self.quantize.map(|name| match name {
            QuantizeName::Q8_0 => Quantization::Q8_0,
            QuantizeName::Q4K => Quantization::Q4K,
            QuantizeName::Fp8 => Quantization::Fp8,
        })
    }

    /// How to store keys and values, if not as the engine does by default.
    pub(crate) fn kv_dtype(&self) -> Option<KvDtype> {
        match self.kv_type {
            KvName::F16 => None,
            KvName::Q8 => Some(KvDtype::Q8),
            KvName::F32 => Some(KvDtype::F32),
        }
    }

    /// The same for the whole engine, and for a GPU.
    pub(crate) fn engine_kv_type(&self) -> anyhow::Result<KvType> {
        match self.kv_type {
            KvName::F16 => Ok(KvType::F16),
            KvName::Q8 => Ok(KvType::Q8),
            KvName::F32 => {
                bail!("the engine, and a GPU, store keys and values as f16 or q8: --kv-type f32 is for the CPU's model")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum QuantizeName {
    /// 8 bits per weight.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4.5 bits per weight.
    #[value(name = "q4_k")]
    Q4K,
    /// 8-bit floating-point numbers; on a GPU only.
    Fp8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeviceName {
    /// The best there is.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KvName {
    /// Half precision, but single for a model in single precision.
    F16,
    /// Signed bytes.
    Q8,
    /// Single precision.
    F32,
}
