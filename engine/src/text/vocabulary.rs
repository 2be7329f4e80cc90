//! What each token id adds to a text, worked out once from the tokenizer's decoder.
//!
//! A decoder is a chain of steps over token spellings. Those of the Mistral and Llama families act on each
//! token alone, but for the spaces stripped from the start of the whole; so a table from id to bytes, and
//! the number of those spaces, say everything. Any other decoder is refused.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::byte_level;

/// Most ids a vocabulary may have: four times the largest in use, and a bound on the table.
pub(super) const MAX_TOKENS: usize = 1 << 20;

/// Tokens that have another spelling in the tokenizer than in their file: this is the file's, and whether it
/// is text.
pub(super) type Renamed = HashMap<u32, (String, bool)>;

/// The bytes of each token, end to end.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each id's bytes lie; `None` for an id that no token has.
    ranges: Vec<Option<(usize, usize)>>,
    leading_spaces: usize,
}

impl Vocabulary {
    /// The table for a tokenizer; special tokens add nothing.
    pub(super) fn new(tokenizer: &Tokenizer, renamed: &Renamed) -> Result<Self, String> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()).map_err(|error| error.to_string())?;
        let steps = Steps::read(&decoder)?;
        let last = tokenizer.get_vocab(true).into_values().max().ok_or("the vocabulary is empty")?;
        let size = last as usize + 1;
        if size > MAX_TOKENS {
            return Err(format!("token id {last} is too large: a vocabulary may have {MAX_TOKENS} ids"));
        }
        let mut vocabulary = Self { bytes: Vec::new(), ranges: Vec::with_capacity(size), leading_spaces: steps.strip };
        for id in 0..=last {
            let of_tokenizer = |spelling: String| {
                let is_text = !tokenizer.get_added_vocabulary().is_special_token(&spelling);
                (spelling, is_text)
            };
            let token = renamed.get(&id).cloned().or_else(|| tokenizer.id_to_token(id).map(of_tokenizer));
            let range = token.map(|(spelling, is_text)| {
                let start = vocabulary.bytes.len();
                if is_text {
                    steps.apply(spelling, &mut vocabulary.bytes);
                }
                (start, vocabulary.bytes.len())
            });
            vocabulary.ranges.push(range);
        }
        Ok(vocabulary)
    }

    /// The number of ids, unused ones included.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// What `id` adds to a text; `None` if no token has that id.
    pub(super) fn text_of(&self, id: u32) -> Option<&[u8]> {
        let (start, end) = (*self.ranges.get(id as usize)?)?;
        Some(&self.bytes[start..end])
    }

    /// How many spaces at the start of a text are the tokenizer's own.
    pub(super) fn leading_spaces(&self) -> usize {
        self.leading_spaces
    }
}

/// A decoder's steps, in the one order that the table can stand for.
#[derive(Debug, Default)]
struct Steps {
    replace: Vec<(String, String)>,
    byte_fallback: bool,
    byte_level: bool,
    fuse: bool,
    strip: usize,
}

impl Steps {
    fn read(decoder: &Value) -> Result<Self, String> {
        let mut steps = Self::default();
        match decoder["decoders"].as_array() {
            Some(chain) => chain.iter().try_for_each(|step| steps.add(step))?,
            None => steps.add(decoder)?,
        }
        Ok(steps)
    }

    fn add(&mut self, step: &Value) -> Result<(), String> {
        let bytes = self.byte_fallback || self.byte_level;
        match step["type"].as_str() {
            Some("Replace") if !bytes && !self.fuse => {
                let replacement = step["pattern"]["String"].as_str().zip(step["content"].as_str());
                // One that lengthens could make the table far larger than the file.
                if let Some((from, to)) = replacement.filter(|(from, to)| !from.is_empty() && to.len() <= from.len()) {
                    self.replace.push((from.to_owned(), to.to_owned()));
                    return Ok(());
                }
            }
            Some("ByteFallback") if !bytes && !self.fuse => {
                self.byte_fallback = true;
                return Ok(());
            }
            Some("ByteLevel") if !bytes && !self.fuse => {
                self.byte_level = true;
                return Ok(());
            }
            Some("Fuse") => {
                self.fuse = true;
                return Ok(());
            }
            Some("Strip") if self.fuse && self.strip == 0 && step["content"] == " " && step["stop"] == 0 => {
                if let Some(start) = step["start"].as_u64().and_then(|start| usize::try_from(start).ok()) {
                    self.strip = start;
                    return Ok(());
                }
            }
            _ => {}
        }
        Err(format!("this decoder is not supported: {step}"))
    }

    fn apply(&self, mut spelling: String, bytes: &mut Vec<u8>) {
        for (from, to) in &self.replace {
            spelling = spelling.replace(from, to);
        }
        if self.byte_level {
            bytes.extend(byte_level::bytes(&spelling));
        } else if let Some(byte) = byte_token(&spelling).filter(|_| self.byte_fallback) {
            bytes.push(byte);
        } else {
            bytes.extend_from_slice(spelling.as_bytes());
        }
    }
}

/// The byte that a spelling such as `<0x0A>` stands for.
fn byte_token(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
