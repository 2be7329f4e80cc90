//! A model's weights by role, wherever they lie.

use std::{collections::HashMap, ops::Range, sync::Arc};

use candle_core::quantized::GgmlDType;
use memmap2::Mmap;

use super::ModelConfig;

/// Missing tensors that a message lists: four layers' worth.
const MAX_NAMED: usize = 36;

/// A weight by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightName {
    /// `[vocab, hidden]`.
    Embedding,
    /// `[hidden]`.
    OutputNorm,
    /// `[vocab, hidden]`; absent when embeddings are tied.
    Output,
    /// A layer's.
    Layer(usize, LayerWeight),
}

/// A layer's weights; matrices are `[out, in]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerWeight {
    /// `[hidden]`.
    AttentionNorm,
    /// `[heads · head_dim, hidden]`.
    Query,
    /// `[kv_heads · head_dim, hidden]`.
    Key,
    /// `[kv_heads · head_dim, hidden]`.
    Value,
    /// `[hidden, heads · head_dim]`.
    AttentionOutput,
    /// `[hidden]`.
    FeedForwardNorm,
    /// `[intermediate, hidden]`.
    Gate,
    /// `[intermediate, hidden]`.
    Up,
    /// `[hidden, intermediate]`.
    Down,
}

impl LayerWeight {
    /// All, in the order they are computed with.
    pub const ALL: [Self; 9] = [
        Self::AttentionNorm,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::FeedForwardNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];
}

impl WeightName {
    /// Every weight that a model of this configuration has.
    pub fn all(config: &ModelConfig) -> impl Iterator<Item = Self> + use<> {
        let ends = [Self::Embedding, Self::OutputNorm];
        let output = (!config.tied_embeddings).then_some(Self::Output);
        let layers = (0..config.layers)
            .flat_map(|layer| LayerWeight::ALL.into_iter().map(move |weight| Self::Layer(layer, weight)));
        ends.into_iter().chain(output).chain(layers)
    }

    /// Its shape in a model of this configuration, rows first.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let weight = match self {
            Self::Embedding | Self::Output => return vec![config.vocab_size, hidden],
            Self::OutputNorm => return vec![hidden],
            Self::Layer(_, weight) => weight,
        };
        match weight {
            LayerWeight::AttentionNorm | LayerWeight::FeedForwardNorm => vec![hidden],
            LayerWeight::Query => vec![query, hidden],
            LayerWeight::Key | LayerWeight::Value => vec![key, hidden],
            LayerWeight::AttentionOutput => vec![hidden, query],
            LayerWeight::Gate | LayerWeight::Up => vec![intermediate, hidden],
            LayerWeight::Down => vec![hidden, intermediate],
        }
    }
}

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// Brain float.
    Bf16,
    /// A GGML block format.
    Quantized(GgmlDType),
}

/// A tensor that lies in a mapped file.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name in the file, for messages.
    pub name: String,
    /// Rows first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: Dtype,
    file: Arc<Mmap>,
    range: Range<usize>,
}

impl Tensor {
    /// A tensor over `range` of `file`; the caller has checked that the range lies in the file and has the
    /// size that shape and dtype ask for.
    pub(crate) fn new(name: String, shape: Vec<usize>, dtype: Dtype, file: Arc<Mmap>, range: Range<usize>) -> Self {
        Self { name, shape, dtype, file, range }
    }

    /// The same numbers as a matrix of one row.
    pub fn as_row(&self) -> Self {
        Self { shape: vec![1, self.shape.iter().product()], ..self.clone() }
    }

    /// Lets go of the memory that its pages take; they are read again if needed again.
    pub(crate) fn release(&self) {
        super::map::release(&self.file, self.range.clone());
    }

    /// The raw bytes, little-endian; not necessarily aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

/// All weights of a model, checked for presence and shape.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: HashMap<WeightName, Tensor>,
}

impl Weights {
    /// Takes every weight of the model from `found`, where it goes by `spelling`, and checks its shape.
    ///
    /// Those that are missing are named, and so is a tensor that nothing takes: a model that has more than
    /// ours (a bias, an expert) would otherwise answer nonsense.
    pub(super) fn collect(
        config: &ModelConfig,
        mut found: HashMap<String, Tensor>,
        spelling: impl Fn(WeightName) -> String,
    ) -> Result<Self, String> {
        let mut tensors = HashMap::new();
        let mut missing = Vec::new();
        for name in WeightName::all(config) {
            let spelled = spelling(name);
            let Some(tensor) = found.remove(&spelled) else {
                missing.push(spelled);
                continue;
            };
            check(&tensor, &name.shape(config))?;
            tensors.insert(name, tensor);
        }
        if !missing.is_empty() {
            let named = missing.len().min(MAX_NAMED);
            let more = if named < missing.len() { ", ..." } else { "" };
            return Err(format!("{} tensors are missing: {}{more}", missing.len(), missing[..named].join(", ")));
        }
        match found.keys().min() {
            Some(name) => Err(format!("tensor {name} is not part of a model with this configuration")),
            None => Ok(Self { tensors }),
        }
    }

    /// The tensor of that role.
    pub fn get(&self, name: WeightName) -> Option<&Tensor> {
        self.tensors.get(&name)
    }

    /// Numbers in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}

fn check(tensor: &Tensor, shape: &[usize]) -> Result<(), String> {
    if tensor.shape != shape {
        return Err(format!(
            "tensor {} has shape {:?}; the configuration asks for {shape:?}",
            tensor.name, tensor.shape
        ));
    }
    match tensor.dtype {
        Dtype::Quantized(dtype) if shape.len() == 1 => {
            Err(format!("tensor {} is quantised ({dtype:?}); a norm must be F32, F16 or BF16", tensor.name))
        }
        _ => Ok(()),
    }
}

/// A tensor of those bytes, for tests of what computes with it.
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failure fails the test")]
pub(crate) fn tensor_of(bytes: &[u8], shape: &[usize], dtype: Dtype) -> Tensor {
    let mut map = memmap2::MmapMut::map_anon(bytes.len()).unwrap();
    map.copy_from_slice(bytes);
    let file = Arc::new(map.make_read_only().unwrap());
    Tensor::new("test".to_owned(), shape.to_vec(), dtype, file, 0..bytes.len())
}
