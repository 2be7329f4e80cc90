//! Room on the disk, asked before it is filled.

use std::path::Path;

use super::PullError;

/// Left for others on the same disk.
const RESERVE: u64 = 64 << 20;

/// Checks that `directory`, which need not exist yet, has room for that many bytes more.
pub(super) fn check_space(directory: &Path, needed: u64) -> Result<(), PullError> {
    let absolute = std::path::absolute(directory).map_err(PullError::io(directory))?;
    let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(existing).map_err(|error| PullError::io(existing)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed.saturating_add(RESERVE) {
        return Err(PullError::Space { directory: directory.to_owned(), free, needed });
    }
    Ok(())
}
