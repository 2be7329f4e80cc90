//! Where models are found on this machine.

use std::path::{Path, PathBuf};

/// A model could not be found.
#[derive(Debug, thiserror::Error)]
#[error("no model `{0}`: it is neither a file or folder nor in `models/`")]
pub struct StoreError(String);

/// The file or folder of a model given by name or path.
pub fn resolve(name: &str) -> Result<PathBuf, StoreError> {
    let places = [PathBuf::from(name), Path::new("models").join(name)];
    places.into_iter().find(|path| path.exists()).ok_or_else(|| StoreError(name.to_owned()))
}
