//! Where a report's JSON goes, and what is left for its text.

use std::fs::File;
use std::io::{self, Write, stderr, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Whoever reads no further has what they wanted.
fn unread(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// Opened before the work, so that a bad path does not cost it.
pub(super) enum JsonOutput {
    None,
    Stdout,
    File(PathBuf, File),
}

impl JsonOutput {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            None => Ok(Self::None),
            Some(path) if path == Path::new("-") => Ok(Self::Stdout),
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot create --json {}", path.display()))?;
                Ok(Self::File(path.to_owned(), file))
            }
        }
    }

    /// Writes the JSON, and the text to whichever of stdout and stderr is left for it.
    pub(super) fn publish(
        self,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
        json: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let (shown, written) = match self {
            Self::None => (text(&mut stdout().lock()), Ok(())),
            Self::Stdout => {
                (text(&mut stderr().lock()), unread(json(&mut stdout().lock())).context("cannot write --json -"))
            }
            Self::File(path, mut file) => {
                let shown = text(&mut stdout().lock());
                let written = json(&mut file).with_context(|| format!("cannot write --json {}", path.display()));
                (shown, written)
            }
        };
        // What one of the two comes to does not cost the other.
        written.and(unread(shown).context("cannot write the report"))
    }
}
