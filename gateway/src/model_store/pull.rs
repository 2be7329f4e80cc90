//! Fetching a model: which files, into which folder, through however many connections it takes.
//!
//! A new model is gathered in `NAME.part` and takes its name when all of it is there and checked; each file
//! is gathered in `FILE.part` and continued from where a connection, or an earlier pull, broke off.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use http::{StatusCode, header};
use reqwest::Response;
use sha2::{Digest, Sha256};

use super::{
    Hub, Progress, PullError, Source, disk,
    hub::{Failure, RemoteFile, Repository, passing},
    progress::{Bytes, FileProgress},
};

/// How often and how fast a broken exchange is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts in a row that may bring nothing.
    pub attempts: u32,
    /// The wait after the first; each further one waits twice as long, up to `MAX_DELAY`.
    pub first_delay: Duration,
}

/// The longest wait between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(30);

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 6, first_delay: Duration::from_millis(500) }
    }
}

/// Fetches models from one Hub.
#[derive(Debug)]
pub struct Puller {
    /// Where from.
    pub hub: Hub,
    /// How stubbornly.
    pub patience: Patience,
    /// Who is told.
    pub progress: Progress,
}

/// Files of a Hugging Face folder that serving needs, beside the weights.
const SIDE_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

impl Puller {
    /// Makes the model present and whole in a folder of its name under `models`; returns the folder.
    pub async fn pull(&self, source: &Source, models: &Path) -> Result<PathBuf, PullError> {
        let repository = self.list(&source.repository).await?;
        let wanted = select(&repository, source.file.as_deref())?;
        let folder = models.join(&source.name);
        let gathering = if folder.exists() { folder.clone() } else { models.join(format!("{}.part", source.name)) };
        let missing: Vec<_> = wanted.iter().filter(|file| !is_present(&gathering, file)).collect();
        if missing.is_empty() && gathering == folder {
            self.progress.say(format_args!("{} is already present, with the sizes the Hub has", folder.display()));
            return Ok(folder);
        }
        let needed = missing.iter().map(|file| file.size.saturating_sub(length(&part(&gathering, file)))).sum();
        disk::check_space(&gathering, needed)?;
        std::fs::create_dir_all(&gathering).map_err(PullError::io(&gathering))?;
        self.progress.say(format_args!("{} at {}: {} to fetch", repository.name, repository.commit, Bytes(needed)));
        for file in missing {
            self.fetch(&repository, file, &gathering).await?;
        }
        if gathering != folder {
            std::fs::rename(&gathering, &folder).map_err(PullError::io(&folder))?;
        }
        Ok(folder)
    }

    async fn list(&self, repository: &str) -> Result<Repository, PullError> {
        let mut failed = 0;
        loop {
            match self.hub.repository(repository).await {
                Ok(listing) => return Ok(listing),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => {
                    failed += 1;
                    self.pause(repository, failed, reason).await?;
                }
            }
        }
    }

    /// Waits before the next attempt, unless enough have failed.
    async fn pause(&self, file: &str, failed: u32, reason: String) -> Result<(), PullError> {
        let attempts = self.patience.attempts;
        if failed >= attempts {
            return Err(PullError::Broken { file: file.to_owned(), attempts, reason });
        }
        let factor = 1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX);
        tokio::time::sleep(self.patience.first_delay.saturating_mul(factor).min(MAX_DELAY)).await;
        Ok(())
    }

    /// Brings one file to its place: whole, checked, then renamed.
    async fn fetch(&self, from: &Repository, file: &RemoteFile, folder: &Path) -> Result<(), PullError> {
        let path = part(folder, file);
        // Without a checksum, nothing would tell that a part is of another version.
        if file.sha256.is_none() && path.exists() {
            std::fs::remove_file(&path).map_err(PullError::io(&path))?;
        }
        let mut part = open_part(&path)?;
        let mut progress = self.progress.file(&file.name, file.size);
        let mut failed = 0;
        loop {
            let before = length(&path);
            let Err(failure) = self.attempt(from, file, &mut part, &mut progress).await else { break };
            let reason = match failure {
                Attempt::Fetch(Failure::Final(error)) => return Err(error),
                Attempt::Disk(source) => return Err(PullError::Io { path, source }),
                Attempt::Fetch(Failure::Passing(reason)) => reason,
            };
            failed = if length(&path) > before { 1 } else { failed + 1 };
            progress.note(format_args!("{reason}; continuing at {}", Bytes(length(&path))));
            self.pause(&file.name, failed, reason).await?;
        }
        part.sync_all().map_err(PullError::io(&path))?;
        check(file, &path, part).await?;
        let place = folder.join(&file.name);
        std::fs::rename(&path, &place).map_err(PullError::io(&place))
    }

    /// One connection's worth of the file.
    async fn attempt(
        &self,
        from: &Repository,
        file: &RemoteFile,
        part: &mut File,
        progress: &mut FileProgress,
    ) -> Result<(), Attempt> {
        let mut at = part.seek(SeekFrom::End(0))?;
        if at > file.size {
            at = restart(part)?;
        }
        progress.at(at);
        if at == file.size {
            return Ok(());
        }
        let mut response = self.hub.open(from, &file.name, at).await?;
        if !continues(&response, at) {
            at = restart(part)?;
            if response.status() != StatusCode::OK {
                return Err(Failure::Passing(format!("the Hub answers {}", response.status())).into());
            }
        }
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            at += chunk.len() as u64;
            if at > file.size {
                restart(part)?;
                return Err(Failure::Passing("more arrives than the Hub announced".to_owned()).into());
            }
            part.write_all(&chunk)?;
            progress.at(at);
        }
        match at == file.size {
            true => Ok(()),
            false => Err(Failure::Passing("the connection ended early".to_owned()).into()),
        }
    }
}

/// Why an attempt ended.
enum Attempt {
    Fetch(Failure),
    Disk(io::Error),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Fetch(failure)
    }
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The files to fetch: the one named, the folder's, or the only GGUF there is.
fn select(repository: &Repository, file: Option<&str>) -> Result<Vec<RemoteFile>, PullError> {
    let contents = |reason: String| PullError::Contents { repository: repository.name.clone(), reason };
    let ggufs: Vec<_> = repository.files.iter().filter(|file| file.name.ends_with(".gguf")).collect();
    let names = || ggufs.iter().take(20).map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = file {
        let found = ggufs.iter().find(|file| file.name == name);
        return match found {
            Some(&file) => Ok(vec![file.clone()]),
            None => Err(contents(format!("has no file {name}; its GGUF files: {}", names()))),
        };
    }
    let is_weights = |name: &str| name.starts_with("model") && name.ends_with(".safetensors");
    let wanted = |file: &&RemoteFile| SIDE_FILES.contains(&file.name.as_str()) || is_weights(&file.name);
    let folder: Vec<_> = repository.files.iter().filter(wanted).cloned().collect();
    let has = |name: &str| folder.iter().any(|file| file.name == name);
    let weights = folder.iter().any(|file| is_weights(&file.name));
    match (ggufs.as_slice(), has("config.json") && has("tokenizer.json") && weights) {
        (_, true) => Ok(folder),
        ([], false) => {
            Err(contents("has neither config.json, tokenizer.json and model*.safetensors nor a GGUF file".to_owned()))
        }
        (&[only], false) => Ok(vec![only.clone()]),
        (_, false) => {
            Err(contents(format!("has several GGUF files; name one as {}:FILE: {}", repository.name, names())))
        }
    }
}

fn part(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(format!("{}.part", file.name))
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn is_present(folder: &Path, file: &RemoteFile) -> bool {
    let path = folder.join(&file.name);
    path.is_file() && length(&path) == file.size
}

/// Opens a part for this process alone.
fn open_part(path: &Path) -> Result<File, PullError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(PullError::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PullError::Busy(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(PullError::io(path)(error)),
    }
}

fn restart(part: &mut File) -> io::Result<u64> {
    part.set_len(0)?;
    part.seek(SeekFrom::Start(0))
}

/// Whether the answer's first byte is the one asked for.
fn continues(response: &Response, at: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

/// Compares the checksum, where the Hub gave one; a damaged part is deleted.
async fn check(file: &RemoteFile, path: &Path, part: File) -> Result<(), PullError> {
    let Some(expected) = file.sha256.clone() else { return Ok(()) };
    let hashed = tokio::task::spawn_blocking(move || sha256(part)).await;
    let found = hashed.map_err(io::Error::other).flatten().map_err(PullError::io(path))?;
    if found != expected {
        std::fs::remove_file(path).map_err(PullError::io(path))?;
        return Err(PullError::Checksum { file: file.name.clone(), expected, found });
    }
    Ok(())
}

fn sha256(mut file: File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&piece[..length]);
    }
}
