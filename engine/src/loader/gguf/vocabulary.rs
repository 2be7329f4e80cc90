//! The tokenizer's part of a GGUF file's metadata.

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
    let is_sentencepiece = model == "llama";
    Ok(GgufVocabulary {
        scores: scores.into_iter().map(|score| score as f32).collect(),
        types: types.into_iter().map(|kind| kind as i32).collect(),
        merges: texts(keys, "tokenizer.ggml.merges")?.unwrap_or_default(),
        bos: token(keys, "tokenizer.ggml.bos_token_id", tokens.len())?,
        eos: token(keys, "tokenizer.ggml.eos_token_id", tokens.len())?,
        unknown: token(keys, "tokenizer.ggml.unknown_token_id", tokens.len())?,
        add_bos: flag(keys, "tokenizer.ggml.add_bos_token")?.unwrap_or(is_sentencepiece),
        add_space_prefix: flag(keys, "tokenizer.ggml.add_space_prefix")?.unwrap_or(is_sentencepiece),
        chat_template: text(keys, "tokenizer.chat_template")?,
        pre: text(keys, "tokenizer.ggml.pre")?,
        model,
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

fn token(keys: &Keys<'_>, key: &str, tokens: usize) -> Result<Option<u32>, String> {
    let Some(value) = keys.plain(key) else { return Ok(None) };
    let id = value.unsigned().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < tokens);
    id.map(Some).ok_or_else(|| format!("{key} is {value}, not one of {tokens} tokens"))
}

fn texts(keys: &Keys<'_>, key: &str) -> Result<Option<Vec<String>>, String> {
    let Some(array) = array(keys, key)? else { return Ok(None) };
    let texts = array.values().enumerate().map(|(index, value)| {
        value.text().map(str::to_owned).ok_or_else(|| format!("{key}[{index}] is {value}, not UTF-8 text"))
    });
    texts.collect::<Result<_, _>>().map(Some)
}

/// One number per token; none where the key is absent.
fn numbers(keys: &Keys<'_>, key: &str, tokens: usize) -> Result<Vec<f64>, String> {
    let Some(array) = array(keys, key)? else { return Ok(Vec::new()) };
    if array.length != tokens as u64 {
        return Err(format!("{key} has {} elements for {tokens} tokens", array.length));
    }
    let numbers = array
        .values()
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
