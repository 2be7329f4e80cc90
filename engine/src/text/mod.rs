//! Text to token ids and back: tokenizer, chat template, incremental detokenizer, stop strings.
//!
//! - `huggingface` and `gguf`: where a [`Text`] comes from; `sentencepiece` and `byte_level` rebuild the
//!   two kinds of tokenizer that GGUF describes;
//! - `tokenizer`: the library, behind a wall; `vocabulary`: what each id stands for;
//! - `chat_template`, with `strftime` for its date; `spellings`: what a message must not forge;
//! - `ends`: what ends an answer by its name;
//! - `detokenizer`: [`TextStream`], one answer token by token; `stop`: stop strings.
//!
//! Control tokens written out in a raw prompt, such as `</s>` or `[INST]`, are recognised as such, as in
//! `transformers`. In a message they are ordinary text: only the template writes control tokens. Tokens that a
//! vocabulary has for a piece of text, such as `<think>`, are found in both, as llama.cpp does. A message
//! without such spellings gives the ids that `transformers` gives.

mod byte_level;
mod chat_template;
mod detokenizer;
mod ends;
mod gguf;
mod huggingface;
mod sentencepiece;
mod spellings;
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
    spellings::Spellings,
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
    spellings: Spellings,
}

impl Inner {
    fn new(codec: Codec, template: Option<ChatTemplate>, ends: Vec<u32>) -> Result<Self, String> {
        let spellings = codec.spellings(&ends)?;
        Ok(Self { codec, template, ends, spellings })
    }
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

/// Whether the tokenizer puts its special tokens around a text.
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
    pub fn from_gguf(path: &Path, mut vocabulary: GgufVocabulary) -> Result<Self, LoadError> {
        let invalid = |reason| LoadError::invalid(path, reason);
        let renamed = vocabulary.prepare().map_err(invalid)?;
        let codec = vocabulary.tokenizer().and_then(|tokenizer| Codec::new(tokenizer, renamed)).map_err(invalid)?;
        let special: SpecialSpellings =
            [("bos_token", vocabulary.bos), ("eos_token", vocabulary.eos), ("unk_token", vocabulary.unknown)]
                .into_iter()
                .filter_map(|(name, id)| Some((name, codec.piece(id?)?)))
                .collect();
        let template = vocabulary.chat_template.map(|source| ChatTemplate::new(source, special)).transpose();
        let inner = Inner::new(codec, template.map_err(invalid)?, vocabulary.ends).map_err(invalid)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ids of a user's prompt: as one user message through the chat template where the model has one, else
    /// (or when `Raw`) as it is behind the begin-of-sequence token. Control tokens written out in it are
    /// recognised when `Raw` alone.
    pub fn encode_prompt(&self, prompt: &str, template: PromptTemplate) -> Result<Vec<u32>, TextError> {
        match template {
            PromptTemplate::Raw => self.encode(prompt, SpecialTokens::Add),
            PromptTemplate::Chat if !self.has_chat_template() => self.encode_plain(prompt, SpecialTokens::Add),
            PromptTemplate::Chat => {
                let message = ChatMessage { role: "user".to_owned(), content: prompt.to_owned() };
                self.encode_chat(&[message])
            }
        }
    }

    /// Ids of a conversation, ready for an answer. Control tokens are those that the template writes: in what
    /// was said they are ordinary text.
    pub fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, TextError> {
        match self.inner.spellings.mark_messages(messages)? {
            None => self.encode(&self.render_chat(messages)?, SpecialTokens::Omit),
            Some((marked, mark)) => {
                self.inner.codec.encode_marked(&self.render_chat(&marked)?, mark, SpecialTokens::Omit)
            }
        }
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

    /// Ids of `text`, in which control tokens written out are ordinary text.
    pub fn encode_plain(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        match self.inner.spellings.mark_text(text)? {
            None => self.encode(text, special),
            Some((marked, mark)) => self.inner.codec.encode_marked(&marked, mark, special),
        }
    }

    /// Ids of `text`, in which control tokens written out are those tokens.
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
