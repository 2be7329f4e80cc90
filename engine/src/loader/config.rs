//! The sizes that define a Mistral-architecture model.

/// How the pairs that rotary embedding turns lie in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// Dimension i turns with i + head_dim/2 (Hugging Face).
    HalfSplit,
    /// Dimension 2i turns with 2i + 1 (GGUF).
    Interleaved,
}

/// The architecture's sizes, as read from `config.json` or from GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding and of the output.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; not always `hidden_size / heads`.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f32,
    /// How its pairs lie.
    pub rope_layout: RopeLayout,
    /// Positions a token attends to, itself included; `None` is all before it.
    pub sliding_window: Option<usize>,
    /// The most positions the model was made for.
    pub max_context: usize,
    /// Whether the output matrix is the embedding.
    pub tied_embeddings: bool,
}
