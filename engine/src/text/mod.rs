//! Text to token ids and back: tokenizer, chat template, incremental detokenizer, stop strings.

mod gguf;

use std::{path::Path, sync::Arc};

pub use gguf::GgufVocabulary;

use crate::error::{LoadError, TextError};

/// A model's tokenizer and chat template; cheap to clone.
#[derive(Debug, Clone)]
pub struct Text {
    inner: Arc<()>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Whether a prompt goes through the chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptTemplate {
    /// As the user's message, where the model has a template.
    Chat,
    /// As it is.
    Raw,
}

/// Whether special tokens are put around, or recognised in, a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As the model's post-processor does (begin-of-sequence).
    Add,
    /// None: the text already has them, or must not.
    Omit,
}

impl Text {
    /// From the `tokenizer.json` and the template in a folder.
    pub fn from_huggingface(_: &Path) -> Result<Self, LoadError> {
        Ok(Self { inner: Arc::new(()) })
    }

    /// From a GGUF file's metadata.
    pub fn from_gguf(_: &Path, _: GgufVocabulary) -> Result<Self, LoadError> {
        Ok(Self { inner: Arc::new(()) })
    }

    /// Ids of a user's prompt: as one user message through the chat template where the model has one, else
    /// (or when `Raw`) as it is behind the begin-of-sequence token.
    pub fn encode_prompt(&self, prompt: &str, template: PromptTemplate) -> Result<Vec<u32>, TextError> {
        let _ = (prompt, template, &self.inner);
        todo!("text")
    }

    /// The prompt text of a conversation, ready for `encode(.., SpecialTokens::Omit)`.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        let _ = messages;
        todo!("text")
    }

    /// Whether the model has a chat template.
    pub fn has_chat_template(&self) -> bool {
        todo!("text")
    }

    /// Ids of `text`.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        let _ = (text, special);
        todo!("text")
    }

    /// Text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        let _ = ids;
        todo!("text")
    }

    /// The vocabulary's own spelling of an id, such as `▁What`.
    pub fn piece(&self, id: u32) -> Option<String> {
        let _ = id;
        todo!("text")
    }

    /// Whether `id` ends a sequence.
    pub fn is_end(&self, id: u32) -> bool {
        let _ = id;
        todo!("text")
    }

    /// A decoder for one answer: tokens go in, the text that is final comes out.
    pub fn stream(&self, stop: &[String]) -> TextStream {
        let _ = stop;
        todo!("text")
    }
}

/// Decodes one answer token by token: never half a character, never part of a stop string.
#[derive(Debug)]
pub struct TextStream {
    text: Text,
}

/// What one token added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that became final; may be empty.
    Text(String),
    /// Text before a stop string that is now complete: the answer ends here.
    Stopped(String),
}

impl TextStream {
    /// Adds a token.
    pub fn push(&mut self, id: u32) -> Piece {
        let _ = (id, &self.text);
        todo!("text")
    }

    /// What is still held back, at the end of the answer (an incomplete character becomes U+FFFD).
    pub fn finish(&mut self) -> String {
        todo!("text")
    }
}
