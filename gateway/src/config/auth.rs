//! Who may ask: bearer keys, from a file or the environment, never on a command line.
//!
//! Only digests of keys are kept, and every comparison takes the same time wherever two digests differ. Whatever is
//! set here and opens the API to nobody is refused: it would else open it to everybody.

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

    /// Reads the keys. A file or a variable that is set and gives no key is an error, and so is a key that no request
    /// could carry.
    pub fn keys(&self) -> Result<ApiKeys, ConfigError> {
        let mut keys = match &self.keys_file {
            Some(path) => ApiKeys::from_file(path)?,
            None => ApiKeys::default(),
        };
        if let Some(list) = std::env::var_os(KEYS_VARIABLE).filter(|list| !list.is_empty()) {
            let more = ApiKeys::from_list(list.to_str());
            let malformed = |reason| ConfigError::Malformed { origin: KEYS_VARIABLE.to_owned(), reason };
            keys.digests.extend(more.map_err(malformed)?.digests);
        }
        Ok(keys)
    }

    /// What is unwise about the file of keys, if anything.
    pub fn warning(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.keys_file.as_ref()?;
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o004 != 0).then(|| format!("{} can be read by everybody on this machine", path.display()))
    }
}

impl ApiKeys {
    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let malformed = |reason| ConfigError::Malformed { origin: path.display().to_string(), reason };
        Self::from_lines(&bytes).map_err(malformed)
    }

    /// One key a line, whatever ends lines; a byte-order mark is none of the first.
    fn from_lines(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
            return Err("auth.keys_file is UTF-16; it must be UTF-8".to_owned());
        }
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        // Of three ways to end a line, one is two bytes.
        let (mut keys, mut number, mut rest) = (Self::default(), 1, bytes);
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
            let key = std::str::from_utf8(&rest[..end]).map_err(|_| format!("line {number} is not UTF-8"))?.trim();
            if !key.starts_with('#') {
                keys.add(key).map_err(|reason| format!("line {number} {reason}"))?;
            }
            let ending = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
            (number, rest) = (number + 1, rest.get(end + ending..).unwrap_or_default());
        }
        match keys.is_empty() {
            true => Err("auth.keys_file holds no key".to_owned()),
            false => Ok(keys),
        }
    }

    /// Comma-separated keys; `None` is a text that is not UTF-8.
    fn from_list(list: Option<&str>) -> Result<Self, String> {
        let list = list.ok_or("is not UTF-8")?;
        let mut keys = Self::default();
        for (place, key) in list.split(',').enumerate() {
            keys.add(key.trim()).map_err(|reason| format!("entry {} {reason}", place + 1))?;
        }
        match keys.is_empty() {
            true => Err("is set and holds no key".to_owned()),
            false => Ok(keys),
        }
    }

    /// Adds a key, unless it is none.
    fn add(&mut self, key: &str) -> Result<(), &'static str> {
        if key.chars().any(char::is_control) {
            return Err("holds a control character: no request can carry such a key");
        }
        if !key.is_empty() {
            self.digests.push(Sha256::digest(key).into());
        }
        Ok(())
    }

    /// Whether the API is open to everyone.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Which one of ours `key` is, if it is one. A key beyond ASCII may come as UTF-8, or as Latin-1, which is what
    /// some clients write headers in.
    pub fn position(&self, key: &[u8]) -> Option<usize> {
        let as_utf8: String = key.iter().copied().map(char::from).collect();
        self.place_of(key).or_else(|| self.place_of(as_utf8.as_bytes()))
    }

    fn place_of(&self, key: &[u8]) -> Option<usize> {
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

    fn places<const N: usize>(keys: &ApiKeys, asked: [&str; N]) -> [Option<usize>; N] {
        asked.map(|key| keys.position(key.as_bytes()))
    }

    #[test]
    fn keys_come_from_a_file_and_match_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# ours\nsecret-1\n\n  secret-2 \n").unwrap();
        let keys = ApiKeys::from_file(&path).unwrap();
        assert_eq!(places(&keys, ["secret-1", "secret-2"]), [Some(0), Some(1)]);
        assert_eq!(places(&keys, ["secret", "# ours", ""]), [None; 3]);
        assert!(!format!("{keys:?}").contains("secret"));
    }

    #[test]
    fn however_a_file_is_written_its_keys_match() {
        for text in
            ["\u{feff}one\ntwo", "one\rtwo\r", "one\r\ntwo\r\n", "\r\n\n# no key\r\none\r\rtwo", " one\t\n\ttwo"]
        {
            assert_eq!(places(&ApiKeys::from_lines(text.as_bytes()).unwrap(), ["one", "two"]), [Some(0), Some(1)]);
        }
        let keys = ApiKeys::from_lines("schlüssel\n鍵\n".as_bytes()).unwrap();
        assert_eq!(places(&keys, ["schlüssel", "鍵"]), [Some(0), Some(1)]);
        assert_eq!(keys.position(b"schl\xfcssel"), Some(0), "Latin-1, as some clients write headers");
    }

    #[test]
    fn a_line_that_can_be_no_key_is_named() {
        for (bytes, reason) in [
            (&b"one\r\ntwo\r\n\xff\xfethree"[..], "line 3 is not UTF-8"),
            (b"one\rtwo\x00\r", "line 2 holds a control character"),
            (b"one\n\nt\x1bwo", "line 3 holds a control character"),
            (b"\xff\xfeo\0n\0e\0", "UTF-16"),
            (b"", "holds no key"),
            (b"\xef\xbb\xbf# none yet\n \r\n", "holds no key"),
        ] {
            let error = ApiKeys::from_lines(bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_list_that_gives_no_key_does_not_open_the_door() {
        assert_eq!(places(&ApiKeys::from_list(Some(" one, two,")).unwrap(), ["one", "two"]), [Some(0), Some(1)]);
        for list in [Some(","), Some("  "), Some(" , ,"), Some("a\u{7}b"), None] {
            assert!(ApiKeys::from_list(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn an_empty_keys_file_does_not_open_the_door() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# none yet\n").unwrap();
        assert!(AuthConfig { keys_file: Some(path) }.keys().is_err());
    }

    #[test]
    fn a_file_that_everybody_can_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        let auth = AuthConfig { keys_file: Some(file.path().to_owned()) };
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(auth.warning().is_some(), warned, "{mode:o}");
        }
    }
}
