//! Loading real files from disk, good and bad.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gguf;
mod hostile;
mod huggingface;

use std::path::Path;

use engine::{
    LoadedModel,
    loader::{LoadOptions, load},
    synth::{self, Format, Preset, SynthOptions},
};

/// Loads what must load.
fn good(path: &Path) -> LoadedModel {
    load(path, LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The message of what must not load; it names a path within `path`.
fn bad(path: &Path) -> String {
    let message = load(path, LoadOptions::default()).map(drop).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message} does not name {}", path.display());
    message
}

/// Asserts that loading fails with a message that has all these words.
#[track_caller]
fn assert_refused(path: &Path, words: &[&str]) {
    let message = bad(path);
    for word in words {
        assert!(message.contains(word), "expected {word:?} in: {message}");
    }
}

/// A tiny synthetic model at `path`.
fn tiny(path: &Path, format: Format) {
    synth::write(Preset::Tiny, format, path, SynthOptions::default()).unwrap();
}
