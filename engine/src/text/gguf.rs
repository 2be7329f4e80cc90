//! The vocabulary that a GGUF file carries.

/// The tokenizer's part of a GGUF file's metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `llama` (SentencePiece) or `gpt2` (byte-level BPE).
    pub model: String,
    /// Spelling of each token.
    pub tokens: Vec<String>,
    /// Score of each token; empty when absent.
    pub scores: Vec<f32>,
    /// Kind of each token; empty when absent.
    pub types: Vec<i32>,
    /// Merges, best first; empty when absent.
    pub merges: Vec<String>,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// Stands for what the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// Whether encoding puts `bos` in front.
    pub add_bos: bool,
    /// Whether encoding puts a space in front.
    pub add_space_prefix: bool,
    /// The chat template.
    pub chat_template: Option<String>,
    /// Name of the pre-tokenizer.
    pub pre: Option<String>,
}
