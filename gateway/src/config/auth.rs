//! Who may ask: bearer keys, from a file or the environment, never on a command line.
//!
//! Only digests of keys are kept, and every comparison takes the same time wherever two digests differ.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ConfigError, Violation};

/// The environment variable with comma-separated keys.
const KEYS_VARIABLE: &str = "GATEWAY_API_KEYS";

/// The `[auth]` table. Off unless there is a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// A file with one key per line; `#` begins a comment line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<PathBuf>,
}

/// The keys that open the API; none leaves it open.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl AuthConfig {
    pub(super) fn check(&self) -> Result<(), Violation> {
        match &self.keys_file {
            Some(path) if path.as_os_str().is_empty() => Err(("auth.keys_file", "is empty".to_owned())),
            _ => Ok(()),
        }
    }

    /// Reads the keys. A keys file without a key is an error: it would leave the API open by mistake.
    pub fn keys(&self) -> Result<ApiKeys, ConfigError> {
        let mut keys = match &self.keys_file {
            Some(path) => ApiKeys::from_file(path)?,
            None => ApiKeys::default(),
        };
        if let Ok(list) = std::env::var(KEYS_VARIABLE) {
            keys.extend(list.split(','));
        }
        Ok(keys)
    }
}

impl ApiKeys {
    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut keys = Self::default();
        keys.extend(text.lines().filter(|line| !line.trim_start().starts_with('#')));
        match keys.is_empty() {
            true => Err(ConfigError::Malformed {
                origin: path.display().to_string(),
                reason: "auth.keys_file holds no key".to_owned(),
            }),
            false => Ok(keys),
        }
    }

    fn extend<'a>(&mut self, keys: impl Iterator<Item = &'a str>) {
        let written = keys.map(str::trim).filter(|key| !key.is_empty());
        self.digests.extend(written.map(|key| <[u8; 32]>::from(Sha256::digest(key))));
    }

    /// Whether the API is open to everyone.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Which one of ours `key` is, if it is one.
    pub fn position(&self, key: &str) -> Option<usize> {
        let asked = <[u8; 32]>::from(Sha256::digest(key));
        let differs = |own: &[u8; 32]| own.iter().zip(asked).fold(0, |bits, (a, b)| bits | (a ^ b)) != 0;
        let places = self.digests.iter().enumerate();
        places.fold(None, |found, (place, own)| if differs(own) { found } else { Some(place) })
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({} redacted)", self.digests.len())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_file_and_match_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# ours\nsecret-1\n\n  secret-2 \n").unwrap();
        let keys = ApiKeys::from_file(&path).unwrap();
        assert_eq!(["secret-1", "secret-2"].map(|key| keys.position(key)), [Some(0), Some(1)]);
        assert_eq!(["secret", "# ours", ""].map(|key| keys.position(key)), [None; 3]);
        assert!(!format!("{keys:?}").contains("secret"));
    }

    #[test]
    fn an_empty_keys_file_does_not_open_the_door() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# none yet\n").unwrap();
        assert!(AuthConfig { keys_file: Some(path) }.keys().is_err());
    }
}
