//! What a model's name stands for at a Hub.

use super::PullError;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called here: its folder's name.
    pub name: String,
    /// `owner/repository` at the Hub.
    pub repository: String,
    /// The GGUF file to take; `None` takes the Hugging Face folder.
    pub file: Option<String>,
}

/// The names that are known: name, repository, file.
const KNOWN: [(&str, &str, Option<&str>); 2] = [
    ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3", None),
    ("mistral-7b-q4", "bartowski/Mistral-7B-Instruct-v0.3-GGUF", Some("Mistral-7B-Instruct-v0.3-Q4_K_M.gguf")),
];

impl Source {
    /// The models that have a name of their own.
    pub fn known() -> impl Iterator<Item = Self> {
        KNOWN.iter().map(|&(name, repository, file)| Self {
            name: name.to_owned(),
            repository: repository.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// A known name, or `owner/repository`, or `owner/repository:file.gguf`.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        if let Some(known) = Self::known().find(|known| known.name == text) {
            return Ok(known);
        }
        let (repository, file) =
            text.split_once(':').map_or((text, None), |(repository, file)| (repository, Some(file)));
        let named = repository.split_once('/').filter(|(owner, name)| is_plain(owner) && is_plain(name));
        let Some((_, name)) = named else {
            let known: Vec<_> = Self::known().map(|known| known.name).collect();
            return Err(PullError::Source(format!(
                "no model is called `{text}`: name one of {}, or owner/repository[:file.gguf]",
                known.join(", ")
            )));
        };
        if let Some(file) = file.filter(|file| !(is_plain(file) && file.ends_with(".gguf"))) {
            return Err(PullError::Source(format!("`{file}` is not the name of a .gguf file")));
        }
        Ok(Self { name: name.to_owned(), repository: repository.to_owned(), file: file.map(str::to_owned) })
    }
}

/// Whether a name can be a file here and a segment of a URL there, and is neither hidden nor `..`.
pub(super) fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}
