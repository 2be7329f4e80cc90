//! Text to token ids and back: tokenizer, chat template, incremental detokenizer, stop strings.
//!
//! - `huggingface` and `gguf`: where a [`Text`] comes from; `sentencepiece` and `byte_level` rebuild the
//!   two kinds of tokenizer that GGUF describes;
//! - `tokenizer`: the library, behind a wall; `vocabulary`: what each id stands for;
//! - `chat_template`, with `strftime` for its date;
//! - `detokenizer`: [`TextStream`], one answer token by token; `stop`: stop strings.
//!
//! Control tokens written out in a text, such as `</s>` or `[INST]`, are recognised as such, in raw prompts
//! and in messages: `transformers` does so, and a prompt must give the ids it gives there.

mod byte_level;
mod chat_template;
mod detokenizer;
mod gguf;
mod huggingface;
mod sentencepiece;
mod stop;
mod strftime;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;

use std::{fmt, path::Path, sync::Arc};

pub use detokenizer::{Piece, TextStream};
pub use gguf::GgufVocabulary;

use self::{
    chat_template::{ChatTemplate, SpecialSpellings},
    tokenizer::Codec,
    vocabulary::Vocabulary,
};
use crate::error::{LoadError, TextError};

/// A model's tokenizer and chat template; cheap to clone.
#[derive(Clone)]
pub struct Text {
    inner: Arc<Inner>,
}

struct Inner {
    codec: Codec,
    template: Option<ChatTemplate>,
    ends: Vec<u32>,
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

/// Whether the tokenizer puts its special tokens around a text. Those written in it are always recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As the model's post-processor does (begin-of-sequence).
    Add,
    /// None: the text already has them, or must not.
    Omit,
}

impl Text {
    /// Reads `tokenizer.json` and the configuration files beside it.
    pub fn from_huggingface(folder: &Path) -> Result<Self, LoadError> {
        Ok(Self { inner: Arc::new(huggingface::load(folder)?) })
    }

    /// Builds the tokenizer from a GGUF file's metadata; `path` is named in errors.
    pub fn from_gguf(path: &Path, vocabulary: GgufVocabulary) -> Result<Self, LoadError> {
        let invalid = |reason| LoadError::invalid(path, reason);
        let codec = vocabulary.tokenizer().and_then(Codec::new).map_err(invalid)?;
        let special: SpecialSpellings =
            [("bos_token", vocabulary.bos), ("eos_token", vocabulary.eos), ("unk_token", vocabulary.unknown)]
                .into_iter()
                .filter_map(|(name, id)| Some((name, vocabulary.spelling(id?).to_owned())))
                .collect();
        let ends = vocabulary.eos.into_iter().collect();
        let template = vocabulary.chat_template.map(|source| ChatTemplate::new(source, special)).transpose();
        Ok(Self { inner: Arc::new(Inner { codec, template: template.map_err(invalid)?, ends }) })
    }

    /// Ids of a user's prompt: as one user message through the chat template where the model has one, else
    /// (or when `Raw`) as it is behind the begin-of-sequence token.
    pub fn encode_prompt(&self, prompt: &str, template: PromptTemplate) -> Result<Vec<u32>, TextError> {
        if template == PromptTemplate::Raw || !self.has_chat_template() {
            return self.encode(prompt, SpecialTokens::Add);
        }
        let message = ChatMessage { role: "user".to_owned(), content: prompt.to_owned() };
        self.encode(&self.render_chat(&[message])?, SpecialTokens::Omit)
    }

    /// The prompt text of a conversation, ready for `encode(.., SpecialTokens::Omit)`.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        let missing = || TextError::Template("the model has none".to_owned());
        self.inner.template.as_ref().ok_or_else(missing)?.render(messages)
    }

    /// Whether the model has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.inner.template.is_some()
    }

    /// Ids of `text`.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        self.inner.codec.encode(text, special)
    }

    /// Text of `ids`, special tokens left out. As in `transformers`, but that each sequence of bytes that is
    /// not UTF-8 becomes one U+FFFD and leaves its neighbours whole.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.codec.decode(ids)
    }

    /// The vocabulary's own spelling of an id, such as `▁What`.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.codec.piece(id)
    }

    /// The number of ids the tokenizer has; a model may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary().len()
    }

    /// Whether `id` ends a sequence.
    pub fn is_end(&self, id: u32) -> bool {
        self.inner.ends.contains(&id)
    }

    /// A decoder for one answer: tokens go in, the text that is final comes out.
    pub fn stream(&self, stop: &[String]) -> TextStream {
        TextStream::new(self.clone(), stop)
    }

    fn vocabulary(&self) -> &Vocabulary {
        self.inner.codec.vocabulary()
    }

    /// A tokenizer of 259 ids: `<unk>`, `<s>`, `</s>` (which ends), and 3 + b for each byte b; no template.
    #[cfg(test)]
    pub(crate) fn byte_level_for_tests() -> Self {
        tests::byte_level(None)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, ends) = (self.vocab_size(), &self.inner.ends);
        f.debug_struct("Text").field("vocab_size", &size).field("ends", ends).finish_non_exhaustive()
    }
}
