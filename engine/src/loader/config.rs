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

/// The largest value of each size that any model of this kind comes near; what is beyond is a broken file.
const MAX_LAYERS: usize = 1000;
const MAX_VOCABULARY: usize = 1 << 20;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_CONTEXT: usize = 1 << 30;

impl ModelConfig {
    /// Checks that the sizes are possible and agree; the error says which does not, and why.
    ///
    /// With these bounds no product of two sizes overflows, and no tensor's size in bytes does.
    pub(crate) fn validate(&self) -> Result<(), String> {
        within("vocabulary size", self.vocab_size, MAX_VOCABULARY)?;
        within("hidden size", self.hidden_size, MAX_WIDTH)?;
        within("intermediate size", self.intermediate_size, MAX_WIDTH)?;
        within("number of layers", self.layers, MAX_LAYERS)?;
        within("number of attention heads", self.heads, MAX_HEADS)?;
        within("number of key-value heads", self.kv_heads, MAX_HEADS)?;
        within("head dimension", self.head_dim, MAX_HEAD_DIM)?;
        within("context length", self.max_context, MAX_CONTEXT)?;
        if let Some(window) = self.sliding_window {
            within("sliding window", window, MAX_CONTEXT)?;
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} attention heads are not a multiple of {} kv heads", self.heads, self.kv_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("head dimension {} is odd; rotary embedding turns pairs", self.head_dim));
        }
        if !(self.rms_norm_eps.is_finite() && (0.0..=1.0).contains(&self.rms_norm_eps)) {
            return Err(format!("RMS norm epsilon {} is not between 0 and 1", self.rms_norm_eps));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta >= 1.0) {
            return Err(format!("rope theta {} is not a number of at least 1", self.rope_theta));
        }
        Ok(())
    }
}

fn within(what: &str, value: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(format!("{what} {value} is not between 1 and {most}")) }
}
