//! Where models lie, and which path a name means.

use std::path::{Path, PathBuf};

use super::{Source, source::is_plain};

/// A model could not be found; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A name that could be fetched.
    #[error("model `{name}` is not on this machine: run `gateway model pull {name}`")]
    NotPulled {
        /// The name.
        name: String,
    },
    /// A fetch that did not end.
    #[error("model `{name}` is only partly on this machine: run `gateway model pull {name}` to continue")]
    Partial {
        /// The name.
        name: String,
    },
    /// The demo model is not where it ships.
    #[error("the demo model is not in {}: it ships in the repository's models/ folder; set GATEWAY_MODELS_DIR to that", .0.display())]
    NoDemo(PathBuf),
    /// Neither a path nor a name.
    #[error("no model `{name}`: it is neither a file nor a folder, nor one of {known}, nor in {}", places.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that are known.
        known: String,
        /// The folder where models are put.
        places: PathBuf,
    },
    /// A folder with several models.
    #[error("{} holds several GGUF files: name one of them by its path", .0.display())]
    Ambiguous(PathBuf),
}

/// The folders with models: new ones go to the first, all are searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    store: PathBuf,
    search: Vec<PathBuf>,
}

/// A model that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its folder's or file's name, without `.gguf`.
    pub name: String,
    /// What to load.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Directories {
    /// As the environment says: `GATEWAY_MODELS_DIR`; else `models` here, if it exists; else the user's
    /// cache. `models` here and beside the binary are searched in any case: the demo model ships there.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let here = PathBuf::from("models");
        let binary = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("models")));
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        let cache = cache.map(|cache| cache.join("llm-gateway").join("models"));
        let local = here.is_dir().then(|| here.clone());
        let store = variable("GATEWAY_MODELS_DIR").or(local).or_else(|| cache.clone()).unwrap_or_else(|| here.clone());
        Self::new(store, [Some(here), binary, cache].into_iter().flatten())
    }

    /// Models are put in `store`, and searched there and then in `others`.
    pub fn new(store: PathBuf, others: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut search = vec![store.clone()];
        for other in others {
            if !search.contains(&other) {
                search.push(other);
            }
        }
        Self { store, search }
    }

    /// Where new models are put.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The file or folder to load for a path, for a name in one of the folders, or for what `pull` takes.
    pub fn resolve(&self, name_or_path: &str) -> Result<PathBuf, StoreError> {
        let path = Path::new(name_or_path);
        if path.exists() {
            return Ok(path.to_owned());
        }
        let source = Source::parse(name_or_path).ok();
        let name = source.as_ref().map_or(name_or_path, |source| &source.name);
        if is_plain(name) {
            let file = source.as_ref().and_then(|source| source.file.as_deref());
            for directory in &self.search {
                if let Some(found) = find(directory, name, file)? {
                    return Ok(found);
                }
            }
        }
        Err(self.absent(name_or_path, source.as_ref()))
    }

    fn absent(&self, asked: &str, source: Option<&Source>) -> StoreError {
        let name = asked.to_owned();
        match source {
            Some(source) if self.store.join(format!("{}.part", source.name)).exists() => StoreError::Partial { name },
            Some(_) => StoreError::NotPulled { name },
            None if asked == "demo" => StoreError::NoDemo(self.store.clone()),
            None => {
                let known: Vec<_> = Source::known().map(|known| known.name).collect();
                StoreError::Unknown { name, known: known.join(", "), places: self.store.clone() }
            }
        }
    }

    /// Every model there is, by name.
    pub fn present(&self) -> Vec<Present> {
        let mut models: Vec<Present> = Vec::new();
        for entry in self.search.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten() {
            let path = entry.path();
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let name = file_name.strip_suffix(".gguf").unwrap_or(&file_name).to_owned();
            let is_new = models.iter().all(|model| model.name != name);
            if is_new && !file_name.ends_with(".part") && is_model(&path) {
                models.push(Present { name, bytes: size(&path), path });
            }
        }
        models.sort_by(|left, right| left.name.cmp(&right.name));
        models
    }
}

/// The file or folder to load for a name or path, as the environment says where to look.
pub fn resolve(name_or_path: &str) -> Result<PathBuf, StoreError> {
    Directories::from_environment().resolve(name_or_path)
}

/// `NAME/config.json`, `NAME/FILE`, the only GGUF file in `NAME`, or `NAME.gguf`.
fn find(directory: &Path, name: &str, file: Option<&str>) -> Result<Option<PathBuf>, StoreError> {
    let folder = directory.join(name);
    if let Some(file) = file {
        return Ok(Some(folder.join(file)).filter(|path| path.is_file()));
    }
    if folder.join("config.json").is_file() {
        return Ok(Some(folder));
    }
    let mut files = ggufs(&folder);
    match (files.pop(), files.pop()) {
        (Some(only), None) => return Ok(Some(only)),
        (Some(_), Some(_)) => return Err(StoreError::Ambiguous(folder)),
        _ => {}
    }
    let candidates = [directory.join(format!("{name}.gguf")), directory.join(name)];
    Ok(candidates.into_iter().find(|path| path.is_file()))
}

fn ggufs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")).collect()
}

fn is_model(path: &Path) -> bool {
    match path.is_dir() {
        true => path.join("config.json").is_file() || !ggufs(path).is_empty(),
        false => path.extension().is_some_and(|extension| extension == "gguf"),
    }
}

fn size(path: &Path) -> u64 {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| length(&entry.path())).sum(),
        Err(_) => length(path),
    }
}
