//! The `tokenizers` library behind a wall: a panic inside it, which hostile files can cause, is an error.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokenizers::{Model, OffsetType, PreTokenizer, Tokenizer};

use super::{
    SpecialTokens,
    detokenizer::Detokenizer,
    spellings::Spellings,
    vocabulary::{Renamed, Vocabulary},
};
use crate::error::TextError;

/// A tokenizer and the table of what its tokens stand for.
pub(super) struct Codec {
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    renamed: Renamed,
}

impl Codec {
    /// Reads a `tokenizer.json`.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, String> {
        let tokenizer = guarded(|| Tokenizer::from_bytes(json))?;
        Self::new(tokenizer, Renamed::new())
    }

    /// Takes a tokenizer whose decoder is one that [`Vocabulary`] knows, and tries it once.
    pub(super) fn new(mut tokenizer: Tokenizer, renamed: Renamed) -> Result<Self, String> {
        guarded(|| tokenizer.with_padding(None).with_truncation(None).map(|_| ()))?;
        let vocabulary = guarded(|| Vocabulary::new(&tokenizer, &renamed))?;
        let codec = Self { tokenizer, vocabulary, renamed };
        codec.encode("a b", SpecialTokens::Add).map_err(|error| error.to_string())?;
        Ok(codec)
    }

    /// What each id stands for.
    pub(super) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The id of a token's spelling.
    pub(super) fn id(&self, spelling: &str) -> Option<u32> {
        self.tokenizer.token_to_id(spelling)
    }

    /// The spelling of an id.
    pub(super) fn piece(&self, id: u32) -> Option<String> {
        self.renamed.get(&id).map(|(spelling, _)| spelling.clone()).or_else(|| self.tokenizer.id_to_token(id))
    }

    /// Ids of a text.
    pub(super) fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        let add = special == SpecialTokens::Add;
        let encoding = guarded(|| self.tokenizer.encode_fast(text, add)).map_err(TextError::Tokenize)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The spellings of control tokens, which include `ends`.
    pub(super) fn spellings(&self, ends: &[u32]) -> Result<Spellings, String> {
        guarded(|| Spellings::new(&self.tokenizer, ends))
    }

    /// Ids of a text in which marks keep spellings from becoming tokens: as [`encode`](Self::encode), but that
    /// marks go once tokens have been found, before anything is merged.
    pub(super) fn encode_marked(&self, text: &str, mark: char, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        let tokenizer = &self.tokenizer;
        let encode = || -> tokenizers::Result<Vec<u32>> {
            let mut text = tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
            text.normalize(|part| {
                part.filter(|c| c != mark);
                Ok(())
            })?;
            if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut text)?;
            }
            text.tokenize(|part| tokenizer.get_model().tokenize(part.get()))?;
            let encoding = text.into_encoding(None, 0, OffsetType::None)?;
            Ok(tokenizer.post_process(encoding, None, special == SpecialTokens::Add)?.get_ids().to_vec())
        };
        guarded(encode).map_err(TextError::Tokenize)
    }

    /// Text of ids, as a stream of them would give it.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        let mut detokenizer = Detokenizer::new(&self.vocabulary);
        let mut text = String::new();
        for &id in ids {
            let unknown = TextError::UnknownId { id, vocabulary: self.vocabulary.len() };
            text.push_str(&detokenizer.push(self.vocabulary.text_of(id).ok_or(unknown)?));
        }
        text.push_str(&detokenizer.finish());
        Ok(text)
    }
}

/// Runs library code; its errors and its panics become sentences.
pub(super) fn guarded<T, E: ToString>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the tokenizer failed: {}", panic_message(panic.as_ref()))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for an unknown reason")
}
