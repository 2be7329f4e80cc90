//! `POST /tokenize` and `POST /detokenize`.

use serde::{Deserialize, Deserializer, Serialize};

/// A text to encode.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeBody {
    /// The text.
    pub text: String,
    /// Put the model's special tokens (begin-of-sequence) around it.
    #[serde(default = "yes", deserialize_with = "null_as_yes")]
    pub add_special_tokens: bool,
    /// Take control tokens written out in the text, such as `</s>`, for those tokens; else they are ordinary
    /// text, as in a message.
    #[serde(default = "yes", deserialize_with = "null_as_yes")]
    pub parse_special: bool,
}

fn yes() -> bool {
    true
}

fn null_as_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(true))
}

/// Its tokens.
#[derive(Debug, Serialize)]
pub struct Tokens {
    /// How many.
    pub count: usize,
    /// Their ids.
    pub ids: Vec<u32>,
    /// The vocabulary's spelling of each.
    pub pieces: Vec<String>,
}

/// Tokens to decode.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeBody {
    /// Their ids.
    pub ids: Vec<u32>,
}

/// Their text, special tokens left out.
#[derive(Debug, Serialize)]
pub struct DetokenizedText {
    /// The text.
    pub text: String,
}
