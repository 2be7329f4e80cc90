//! A model's weights by role, wherever they lie.

use std::{collections::HashMap, ops::Range, sync::Arc};

use candle_core::quantized::GgmlDType;
use memmap2::Mmap;

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
    /// The weights found in a model's files.
    pub(crate) fn new(tensors: HashMap<WeightName, Tensor>) -> Self {
        Self { tensors }
    }

    /// The tensor of that role.
    pub fn get(&self, name: WeightName) -> Option<&Tensor> {
        self.tensors.get(&name)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.bytes().len() as u64).sum()
    }

    /// Numbers in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}
