//! Tokens to text, one by one: never half a character, never part of a stop string.
//!
//! Invariants: what is given out is final; concatenated, and with no stop string, it is exactly what
//! [`Text::decode`] gives for all ids, because that runs the same `Detokenizer`. A token costs what its own
//! bytes cost. A sequence that is not UTF-8 becomes one U+FFFD as soon as it can no longer become valid.

use super::{Text, stop::StopStrings, vocabulary::Vocabulary};

/// Decodes one answer token by token: never half a character, never part of a stop string.
#[derive(Debug)]
pub struct TextStream {
    text: Text,
    detokenizer: Detokenizer,
    stops: StopStrings,
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
    pub(super) fn new(text: Text, stops: &[String]) -> Self {
        let detokenizer = Detokenizer::new(text.vocabulary());
        Self { text, detokenizer, stops: StopStrings::new(stops) }
    }

    /// Adds a token. Special tokens and ids outside the vocabulary add no text.
    pub fn push(&mut self, id: u32) -> Piece {
        let bytes = self.text.vocabulary().text_of(id).unwrap_or_default();
        let text = self.detokenizer.push(bytes);
        self.stops.push(&text)
    }

    /// What is still held back, at the end of the answer (an incomplete character becomes U+FFFD).
    pub fn finish(&mut self) -> String {
        match self.stops.push(&self.detokenizer.finish()) {
            Piece::Stopped(text) => text,
            Piece::Text(text) => text + &self.stops.finish(),
        }
    }
}

/// Bytes in, whole characters out, without the spaces that the tokenizer put before the text.
#[derive(Debug)]
pub(super) struct Detokenizer {
    leading_spaces: usize,
    /// An unfinished character: at most three bytes between calls.
    partial: Vec<u8>,
}

impl Detokenizer {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        Self { leading_spaces: vocabulary.leading_spaces(), partial: Vec::new() }
    }

    /// The characters that these bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let bytes = self.strip_leading(bytes);
        self.partial.extend_from_slice(bytes);
        let mut text = String::new();
        let mut read = 0;
        for chunk in self.partial.utf8_chunks() {
            text.push_str(chunk.valid());
            read += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() || self.partial.len() == read + invalid.len() && may_become_a_character(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            read += invalid.len();
        }
        self.partial.drain(..read);
        text
    }

    /// The replacement of a character that will not be completed.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }

    fn strip_leading<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let spaces = bytes.iter().take(self.leading_spaces).take_while(|byte| **byte == b' ').count();
        self.leading_spaces = if spaces == bytes.len() { self.leading_spaces - spaces } else { 0 };
        &bytes[spaces..]
    }
}

/// Whether more bytes could make this, which ends the input, valid.
fn may_become_a_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
