//! Files mapped into memory: the loader's only unsafe code.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use memmap2::Mmap;

use crate::error::LoadError;

/// Maps a regular file read-only.
#[expect(unsafe_code, reason = "mapping a file cannot be checked by the compiler")]
pub(super) fn map(path: &Path) -> Result<Arc<Mmap>, LoadError> {
    let io = |source| LoadError::io(path, source);
    // Asked before opening: a pipe would block the open.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(LoadError::invalid(path, "not a regular file"));
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is private and read-only, so nothing here writes through it. What another process
    // writes into the file shows as other weights, not as broken memory: only bytes are read from it. A file
    // that is truncated while in use ends the process (SIGBUS), as with every engine that maps its weights;
    // models are replaced by renaming, which leaves the mapped file whole.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(map))
}

/// Gives back the memory of a range's pages; the file's content is there again when next read.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the advice may change the content of other kinds of maps")]
pub(super) fn release(map: &Mmap, range: Range<usize>) {
    // SAFETY: of a file's map that nobody writes, what is given back is what the file has.
    let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    if let Err(error) = advised {
        tracing::debug!(%error, "the pages of weights already placed stay in memory");
    }
}

/// Gives back nothing where there is no such call.
#[cfg(not(unix))]
pub(super) fn release(_: &Mmap, _: Range<usize>) {}
