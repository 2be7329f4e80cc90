//! Tokenizer, chat template and end tokens from a Hugging Face folder.
//!
//! `tokenizer.json` must be there; the other files may say more. Each is read whole, up to a bound.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Inner,
    chat_template::{ChatTemplate, SpecialSpellings},
    tokenizer::Codec,
};
use crate::error::LoadError;

/// Tokenizers of 256 thousand tokens take some 35 MB.
const MAX_TOKENIZER: u64 = 256 << 20;
const MAX_CONFIG: u64 = 16 << 20;

pub(super) fn load(folder: &Path) -> Result<Inner, LoadError> {
    let path = folder.join("tokenizer.json");
    let json = read(&path, MAX_TOKENIZER)?;
    let codec = Codec::from_json(&json).map_err(|reason| LoadError::invalid(&path, reason))?;
    let config = Config::read_if_present(folder.join("tokenizer_config.json"))?;
    let special = special_spellings(&config)?;
    let ends = end_ids(folder, &codec, &special)?;
    let template = match template_source(folder, &config)? {
        Some((path, source)) => {
            Some(ChatTemplate::new(source, special).map_err(|reason| LoadError::invalid(path, reason))?)
        }
        None => None,
    };
    Ok(Inner { codec, template, ends })
}

/// A JSON object and the file it came from.
struct Config {
    path: PathBuf,
    value: Value,
}

impl Config {
    fn read_if_present(path: PathBuf) -> Result<Self, LoadError> {
        let value = match read_if_present(&path, MAX_CONFIG)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| LoadError::invalid(&path, error.to_string())),
            None => Ok(Value::Null),
        };
        Ok(Self { value: value?, path })
    }

    fn wrong(&self, key: &str, expected: &str) -> LoadError {
        LoadError::invalid(&self.path, format!("`{key}` must be {expected}"))
    }

    /// One id, several or none.
    fn ids(&self, key: &str) -> Result<Vec<u32>, LoadError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match &self.value[key] {
            Value::Null => Some(Vec::new()),
            Value::Array(values) => values.iter().map(id).collect(),
            value => id(value).map(|id| vec![id]),
        }
        .ok_or_else(|| self.wrong(key, "a token id or a list of them"))
    }
}

/// The tokens' spellings, each a string or an object with `content`.
fn special_spellings(config: &Config) -> Result<SpecialSpellings, LoadError> {
    let mut special = SpecialSpellings::new();
    for key in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        let value = &config.value[key];
        if value.is_null() {
            continue;
        }
        let spelling = value.as_str().or_else(|| value["content"].as_str());
        let spelling = spelling.ok_or_else(|| config.wrong(key, "a string or an object with `content`"))?;
        special.insert(key, spelling.to_owned());
    }
    Ok(special)
}

/// The generation configuration decides, else the model's, else the tokenizer's end token.
fn end_ids(folder: &Path, codec: &Codec, special: &SpecialSpellings) -> Result<Vec<u32>, LoadError> {
    for file in ["generation_config.json", "config.json"] {
        let ids = Config::read_if_present(folder.join(file))?.ids("eos_token_id")?;
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    Ok(special.get("eos_token").and_then(|spelling| codec.id(spelling)).into_iter().collect())
}

/// The template's file and source: `chat_template.jinja`, else what `tokenizer_config.json` holds, where a
/// list of named templates gives its `default`.
fn template_source(folder: &Path, config: &Config) -> Result<Option<(PathBuf, String)>, LoadError> {
    const KEY: &str = "chat_template";
    let path = folder.join("chat_template.jinja");
    if let Some(bytes) = read_if_present(&path, MAX_CONFIG)? {
        let source = String::from_utf8(bytes).map_err(|error| LoadError::invalid(&path, error.to_string()))?;
        return Ok(Some((path, source)));
    }
    let source = match &config.value[KEY] {
        Value::Null => return Ok(None),
        Value::Array(named) => named.iter().find(|entry| entry["name"] == "default").map(|entry| &entry["template"]),
        value => Some(value),
    };
    match source.and_then(Value::as_str) {
        Some(source) => Ok(Some((config.path.clone(), source.to_owned()))),
        None => Err(config.wrong(KEY, "a string, or a list of named templates with one named `default`")),
    }
}

fn read_if_present(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
    match read(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(LoadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    // A pipe would block before its kind could be seen.
    if !std::fs::metadata(path).map_err(|error| LoadError::io(path, error))?.is_file() {
        return Err(LoadError::invalid(path, "this is not a file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| LoadError::io(path, error))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| LoadError::io(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(LoadError::invalid(path, format!("the file has more than {limit} bytes")));
    }
    Ok(bytes)
}
