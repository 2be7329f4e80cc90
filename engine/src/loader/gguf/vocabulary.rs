//! The tokenizer's part of a GGUF file's metadata.
//!
//! What llama.cpp tolerates is taken with a warning: ids that no token has mean that there is no such token.

use super::{
    Keys,
    reader::{Array, Value},
};
use crate::text::GgufVocabulary;

/// Reads `tokenizer.*`; the model has `rows` embeddings, and no token may be beyond them.
pub(super) fn read(keys: &Keys<'_>, rows: usize) -> Result<GgufVocabulary, String> {
    let model = text(keys, "tokenizer.ggml.model")?.ok_or("tokenizer.ggml.model is missing")?;
    let tokens = texts(keys, "tokenizer.ggml.tokens")?.ok_or("tokenizer.ggml.tokens is missing")?;
    if tokens.is_empty() || tokens.len() > rows {
        return Err(format!("tokenizer.ggml.tokens has {} tokens for {rows} embeddings", tokens.len()));
    }
    let scores = numbers(keys, "tokenizer.ggml.scores", tokens.len())?;
    let types = numbers(keys, "tokenizer.ggml.token_type", tokens.len())?;
    let types: Vec<i32> = types.into_iter().map(|kind| kind as i32).collect();
    let is_sentencepiece = model == "llama";
    // Old files leave these out: SentencePiece has them first.
    let usual = |id: u32| Some(id).filter(|_| is_sentencepiece && matches!(types.get(id as usize), Some(2 | 3)));
    let token = |key: &str, usual| token(keys, key, tokens.len(), usual);
    let mut ends = Vec::new();
    for name in ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"] {
        ends.extend(token(&format!("tokenizer.ggml.{name}_token_id"), None)?);
    }
    Ok(GgufVocabulary {
        scores: scores.into_iter().map(|score| score as f32).collect(),
        merges: texts(keys, "tokenizer.ggml.merges")?.unwrap_or_default(),
        bos: token("tokenizer.ggml.bos_token_id", usual(1))?,
        eos: token("tokenizer.ggml.eos_token_id", usual(2))?,
        unknown: token("tokenizer.ggml.unknown_token_id", usual(0))?,
        ends,
        add_bos: flag(keys, "tokenizer.ggml.add_bos_token")?.unwrap_or(is_sentencepiece),
        add_space_prefix: flag(keys, "tokenizer.ggml.add_space_prefix")?.unwrap_or(is_sentencepiece),
        chat_template: text(keys, "tokenizer.chat_template")?,
        pre: text(keys, "tokenizer.ggml.pre")?,
        model,
        types,
        tokens,
    })
}

fn text(keys: &Keys<'_>, key: &str) -> Result<Option<String>, String> {
    let Some(value) = keys.plain(key) else { return Ok(None) };
    value.text().map(|text| Some(text.to_owned())).ok_or_else(|| format!("{key} is {value}, not text"))
}

fn flag(keys: &Keys<'_>, key: &str) -> Result<Option<bool>, String> {
    match keys.plain(key) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(format!("{key} is {other}, neither true nor false")),
    }
}

/// A special token; `usual` is its id where the file does not say. An id that no token has, such as
/// 4294967295 or -1, means that there is none.
fn token(keys: &Keys<'_>, key: &str, tokens: usize, usual: Option<u32>) -> Result<Option<u32>, String> {
    let Some(value) = keys.plain(key) else { return Ok(usual) };
    if !matches!(value, Value::Unsigned(_) | Value::Signed(_)) {
        return Err(format!("{key} is {value}, not a token id"));
    }
    let id = value.unsigned().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < tokens);
    if id.is_none() {
        tracing::warn!("{key} is {value}, which none of {tokens} tokens has: the model is taken to have no such token");
    }
    Ok(id)
}

fn texts(keys: &Keys<'_>, key: &str) -> Result<Option<Vec<String>>, String> {
    let Some(array) = array(keys, key)? else { return Ok(None) };
    let texts = array.values().enumerate().map(|(index, value)| {
        value.text().map(str::to_owned).ok_or_else(|| format!("{key}[{index}] is {value}, not UTF-8 text"))
    });
    texts.collect::<Result<_, _>>().map(Some)
}

/// One number per token, or more, which mean nothing; none where the key is absent.
fn numbers(keys: &Keys<'_>, key: &str, tokens: usize) -> Result<Vec<f64>, String> {
    let Some(array) = array(keys, key)? else { return Ok(Vec::new()) };
    if array.length < tokens as u64 {
        return Err(format!("{key} has {} elements for {tokens} tokens", array.length));
    }
    if array.length > tokens as u64 {
        tracing::warn!("{key} has {} elements for {tokens} tokens: the rest is left out", array.length);
    }
    let numbers = array
        .values()
        .take(tokens)
        .enumerate()
        .map(|(index, value)| value.number().ok_or_else(|| format!("{key}[{index}] is {value}, not a number")));
    numbers.collect()
}

fn array<'a>(keys: &Keys<'a>, key: &str) -> Result<Option<Array<'a>>, String> {
    match keys.plain(key) {
        None => Ok(None),
        Some(Value::Array(array)) => Ok(Some(*array)),
        Some(other) => Err(format!("{key} is {other}, not an array")),
    }
}
