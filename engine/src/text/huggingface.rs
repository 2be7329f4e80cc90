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
    ends,
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
    Inner::new(codec, template, ends).map_err(|reason| LoadError::invalid(&path, reason))
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

    /// One id, several or none. A whole number that is no id, such as -1, means that there is none.
    fn ids(&self, key: &str, vocabulary: usize) -> Result<Vec<u32>, LoadError> {
        let values = match &self.value[key] {
            Value::Null => &[],
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values {
            match value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < vocabulary) {
                Some(id) => ids.push(id),
                None if value.is_i64() || value.is_u64() => {
                    let path = self.path.display();
                    tracing::warn!(
                        "{path}: `{key}` has {value}, which none of {vocabulary} tokens has: it is left out"
                    );
                }
                None => return Err(self.wrong(key, "a token id or a list of them")),
            }
        }
        Ok(ids)
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

/// What any of the files says ends an answer, and what does by its name: files leave out what others have.
fn end_ids(folder: &Path, codec: &Codec, special: &SpecialSpellings) -> Result<Vec<u32>, LoadError> {
    let mut ends = ends::find([], |name| codec.id(name));
    for file in ["generation_config.json", "config.json"] {
        ends.extend(Config::read_if_present(folder.join(file))?.ids("eos_token_id", codec.vocabulary().len())?);
    }
    ends.extend(special.get("eos_token").and_then(|spelling| codec.id(spelling)));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests panic on failure")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::{PromptTemplate, SpecialTokens, Text};

    /// A small but complete `tokenizer.json`: `<s>` 0, `</s>` 1, `▁` 2, `a` 3.
    fn tokenizer() -> Value {
        let added = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
        };
        json!({
            "version": "1.0",
            "truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": null,
            "added_tokens": [added(0, "<s>"), added(1, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                "vocab": {"<s>": 0, "</s>": 1, "▁": 2, "a": 3}, "merges": []}
        })
    }

    fn load_files(files: &[(&str, &[u8])]) -> Result<Text, LoadError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Text::from_huggingface(folder.path())
    }

    fn load_with(files: &[(&str, &str)]) -> Result<Text, LoadError> {
        let tokenizer = tokenizer().to_string();
        let files: Vec<_> = files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
        load_files(&[&[("tokenizer.json", tokenizer.as_bytes())], files.as_slice()].concat())
    }

    fn refused(result: Result<Text, LoadError>, file: &str, because: &str) {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(because), "{error}");
    }

    #[test]
    fn a_folder_with_a_tokenizer_is_enough() {
        let text = load_with(&[]).unwrap();
        assert_eq!(text.encode("a a", SpecialTokens::Add).unwrap(), [0, 2, 3, 2, 3]);
        assert!(!text.has_chat_template() && text.is_end(1) && !text.is_end(0));
    }

    #[test]
    fn end_ids_come_from_every_file() {
        let tokenizer = ("tokenizer_config.json", r#"{"eos_token": {"content": "</s>"}}"#);
        let model = ("config.json", r#"{"eos_token_id": 2}"#);
        let generation = ("generation_config.json", r#"{"eos_token_id": [3, 0]}"#);
        let ends = |files: &[_]| -> Vec<u32> {
            let text = load_with(files).unwrap();
            (0..10).filter(|id| text.is_end(*id)).collect()
        };
        assert_eq!(ends(&[]), [1]);
        assert_eq!(ends(&[("tokenizer_config.json", r#"{"eos_token": "a"}"#)]), [1, 3]);
        assert_eq!(ends(&[tokenizer, model]), [1, 2]);
        assert_eq!(ends(&[tokenizer, model, generation]), [0, 1, 2, 3]);
        assert_eq!(ends(&[tokenizer, ("generation_config.json", "{}")]), [1]);
        assert_eq!(ends(&[("config.json", r#"{"eos_token_id": [-1, 4294967295, 9, 3]}"#)]), [1, 3]);
        assert_eq!(ends(&[("config.json", r#"{"eos_token_id": -1}"#)]), [1]);
        refused(
            load_with(&[("config.json", r#"{"eos_token_id": [1, "x"]}"#)]),
            "config.json",
            "`eos_token_id` must be",
        );
    }

    #[test]
    fn the_template_is_found_in_each_of_its_places() {
        let prompt = |files: &[_]| load_with(files).unwrap().encode_prompt("a", PromptTemplate::Chat).unwrap();
        let plain = r#"{"bos_token": "<s>", "chat_template": "{{ bos_token }}{{ messages[0].content }}</s>"}"#;
        assert_eq!(prompt(&[("tokenizer_config.json", plain)]), [0, 2, 3, 1]);
        let named =
            r#"{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "</s>"}]}"#;
        assert_eq!(prompt(&[("tokenizer_config.json", named)]), [1]);
        assert_eq!(prompt(&[("tokenizer_config.json", plain), ("chat_template.jinja", "<s>")]), [0]);

        let none = r#"{"chat_template": [{"name": "tool_use", "template": "x"}]}"#;
        refused(load_with(&[("tokenizer_config.json", none)]), "tokenizer_config.json", "`default`");
        refused(load_with(&[("tokenizer_config.json", r#"{"bos_token": 1}"#)]), "tokenizer_config.json", "`bos_token`");
        refused(load_with(&[("chat_template.jinja", "{% if %}")]), "chat_template.jinja", "chat template");
        refused(load_files(&[]), "tokenizer.json", "cannot read");
    }

    #[test]
    fn damaged_files_are_errors() {
        let whole = tokenizer().to_string();
        for length in (0..whole.len()).step_by(7) {
            refused(load_files(&[("tokenizer.json", &whole.as_bytes()[..length])]), "tokenizer.json", "");
        }
        refused(load_files(&[("tokenizer.json", &[0xff; 100])]), "tokenizer.json", "");
        refused(load_files(&[("tokenizer.json", "[".repeat(1 << 20).as_bytes())]), "tokenizer.json", "");
        refused(load_with(&[("config.json", "{")]), "config.json", "");
        refused(load_with(&[("chat_template.jinja", &"x".repeat((16 << 20) + 1))]), "chat_template.jinja", "bytes");
    }

    #[test]
    fn hostile_tokenizers_are_errors() {
        let changed = |pointer: &str, value: Value| {
            let mut json = tokenizer();
            *json.pointer_mut(pointer).unwrap() = value;
            load_files(&[("tokenizer.json", json.to_string().as_bytes())])
        };
        let hostile = [
            ("/model/vocab/a", json!(u32::MAX)),
            ("/model/vocab/a", json!(1 << 21)),
            ("/model/vocab/▁", json!("two")),
            ("/model/merges", json!(["a b"])),
            ("/model/merges", json!([["a", "a", "a"]])),
            ("/model", json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]})),
            ("/post_processor/single", json!([{"Sequence": {"id": "B", "type_id": 0}}])),
            ("/post_processor/single", json!([{"SpecialToken": {"id": "none", "type_id": 0}}])),
            ("/decoder", Value::Null),
            ("/decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true})),
            ("/decoder/decoders/0/content", json!("x".repeat(1 << 20))),
            ("/decoder/decoders/3/stop", json!(3)),
            ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})),
        ];
        for (pointer, value) in hostile {
            refused(changed(pointer, value), "tokenizer.json", "");
        }
        let mut prefixed = tokenizer();
        prefixed["model"]["continuing_subword_prefix"] = json!("###");
        prefixed["model"]["merges"] = json!([["a", "a"]]);
        refused(load_files(&[("tokenizer.json", prefixed.to_string().as_bytes())]), "tokenizer.json", "failed");
    }
}
