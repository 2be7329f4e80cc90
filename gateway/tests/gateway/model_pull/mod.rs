//! `gateway model pull` against a Hub stand-in that misbehaves in every way a network does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hub;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use gateway::model_store::{Directories, Hub, Patience, Progress, PullError, Puller, Source};
use hub::{Fault, HubFile, StandIn};
use tempfile::TempDir;

const TOKEN: &str = "hf_secretsecret";
const SHARD: &str = "model-00001-of-00002.safetensors";

/// Bytes that differ along the way, so that a wrong offset shows.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

fn folder_files() -> Vec<HubFile> {
    vec![
        HubFile::small("config.json", b"{}"),
        HubFile::small("tokenizer.json", b"{\"a\":1}"),
        HubFile::small("model.safetensors.index.json", b"{}"),
        HubFile::large(SHARD, content(100_000)),
        HubFile::large("model-00002-of-00002.safetensors", content(50_000)),
        HubFile::large("consolidated.safetensors", content(10)),
        HubFile::small("README.md", b"read"),
        HubFile::small("../../escape.json", b"{}"),
        HubFile::small("/etc/config.json", b"{}"),
        HubFile::small("onnx/model.safetensors", b"{}"),
    ]
}

fn puller(stand_in: &StandIn) -> Puller {
    Puller {
        hub: Hub::new(&stand_in.url(), Some(TOKEN)).unwrap(),
        patience: Patience { attempts: 3, first_delay: Duration::ZERO },
        progress: Progress::Silent,
    }
}

async fn pull(stand_in: &StandIn, models: &Path, source: &str) -> Result<PathBuf, PullError> {
    puller(stand_in).pull(&Source::parse(source).unwrap(), models).await
}

fn resolve(models: &Path, name: &str) -> Result<PathBuf, String> {
    Directories::new(models.to_owned(), []).resolve(name).map_err(|error| error.to_string())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that the folder has exactly the model's files, whole.
fn assert_whole(folder: &Path) {
    let expected =
        ["config.json", SHARD, "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"];
    assert_eq!(names(folder), expected);
    assert!(fs::read(folder.join(SHARD)).unwrap() == content(100_000));
    assert!(fs::read(folder.join("model-00002-of-00002.safetensors")).unwrap() == content(50_000));
}

#[tokio::test]
async fn a_model_is_pulled_whole_found_by_name_and_not_pulled_twice() {
    let stand_in = StandIn::start(folder_files()).await;
    let temp = TempDir::new().unwrap();
    let models = temp.path().join("models");
    assert_eq!(
        resolve(&models, "mistral-7b").unwrap_err(),
        "model `mistral-7b` is not on this machine: run `gateway model pull mistral-7b`"
    );
    let folder = pull(&stand_in, &models, "mistral-7b").await.unwrap();
    assert_whole(&folder);
    assert_eq!(names(&models), ["mistral-7b"]);
    assert_eq!(names(temp.path()), ["models"]);
    assert_eq!(resolve(&models, "mistral-7b").unwrap(), folder);

    let asked = stand_in.asked().len();
    assert_eq!(pull(&stand_in, &models, "mistral-7b").await.unwrap(), folder);
    assert_eq!(stand_in.asked().len(), asked, "what is present is not fetched");

    // A file that is not as long as the Hub's is fetched again.
    fs::write(folder.join("tokenizer.json"), b"{").unwrap();
    pull(&stand_in, &models, "mistral-7b").await.unwrap();
    assert_eq!(stand_in.asked().len(), asked + 1);
    assert_whole(&folder);
}

#[tokio::test]
async fn a_broken_connection_is_continued_where_it_broke() {
    let files = vec![HubFile::large("m.gguf", content(100_000))];
    let stand_in = StandIn::start(files).await;
    let temp = TempDir::new().unwrap();
    stand_in.fail([Fault::Break(40_000), Fault::Break(30_000), Fault::Status(503, ""), Fault::Break(20_000)]);
    let folder = pull(&stand_in, temp.path(), "owner/model").await.unwrap();
    assert!(fs::read(folder.join("m.gguf")).unwrap() == content(100_000));
    let range = |from: u32| Some(format!("bytes={from}-"));
    assert_eq!(stand_in.ranges("m.gguf"), [None, range(40_000), range(70_000), range(70_000), range(90_000)]);
}

#[tokio::test]
async fn a_pull_that_gave_up_is_continued_by_the_next() {
    let stand_in = StandIn::start(vec![HubFile::large("m.gguf", content(100_000))]).await;
    let temp = TempDir::new().unwrap();
    stand_in.fail([Fault::Break(30_000), Fault::Break(0), Fault::Break(0)]);
    let error = pull(&stand_in, temp.path(), "owner/model").await.unwrap_err().to_string();
    assert!(error.contains("gave up after 3 attempts") && error.contains("pull again"), "{error}");
    assert_eq!(names(temp.path()), ["model.part"]);
    let partly = resolve(temp.path(), "owner/model").unwrap_err();
    assert!(partly.contains("only partly") && partly.contains("gateway model pull owner/model"), "{partly}");

    let folder = pull(&stand_in, temp.path(), "owner/model").await.unwrap();
    assert!(fs::read(folder.join("m.gguf")).unwrap() == content(100_000));
    assert_eq!(stand_in.ranges("m.gguf").last().unwrap().as_deref(), Some("bytes=30000-"));
    assert_eq!(names(temp.path()), ["model"]);
}

#[tokio::test]
async fn a_hub_that_ignores_or_mistakes_the_range_does_no_harm() {
    for fault in [Fault::IgnoreRange, Fault::WrongRange, Fault::Longer, Fault::Status(416, "")] {
        let stand_in = StandIn::start(vec![HubFile::large("m.gguf", content(100_000))]).await;
        let temp = TempDir::new().unwrap();
        stand_in.fail([Fault::Break(40_000), fault]);
        let folder = pull(&stand_in, temp.path(), "owner/model").await.unwrap();
        assert!(fs::read(folder.join("m.gguf")).unwrap() == content(100_000), "{fault:?}");
    }
    // A part that is longer than the file is of no use.
    let stand_in = StandIn::start(vec![HubFile::large("m.gguf", content(1000))]).await;
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("model.part")).unwrap();
    fs::write(temp.path().join("model.part/m.gguf.part"), content(2000)).unwrap();
    let folder = pull(&stand_in, temp.path(), "owner/model").await.unwrap();
    assert!(fs::read(folder.join("m.gguf")).unwrap() == content(1000));
}

#[tokio::test]
async fn a_damaged_file_is_deleted_and_said_to_be() {
    let mut file = HubFile::large("m.gguf", content(5000));
    let right = file.sha256.replace("0".repeat(64)).unwrap();
    let stand_in = StandIn::start(vec![file.clone()]).await;
    let temp = TempDir::new().unwrap();
    let error = pull(&stand_in, temp.path(), "owner/model").await.unwrap_err();
    assert!(matches!(&error, PullError::Checksum { found, .. } if *found == right), "{error}");
    assert!(names(&temp.path().join("model.part")).is_empty());
    assert!(resolve(temp.path(), "owner/model").is_err());

    file.sha256 = Some(right.to_uppercase());
    *stand_in.shared.files.lock().unwrap() = vec![file];
    pull(&stand_in, temp.path(), "owner/model").await.unwrap();
    assert!(resolve(temp.path(), "owner/model").unwrap().ends_with("model/m.gguf"));
}

#[tokio::test]
async fn refusals_say_what_to_do_and_never_show_the_token() {
    let cases = [
        (Fault::Status(401, "GatedRepo"), "accept its licence at"),
        (Fault::Status(403, "GatedRepo"), "HF_TOKEN"),
        (Fault::Status(404, ""), "is not there (404)"),
        (Fault::Status(418, ""), "418"),
    ];
    for (fault, words) in cases {
        let stand_in = StandIn::start(folder_files()).await;
        let temp = TempDir::new().unwrap();
        stand_in.fail([fault]);
        let error = pull(&stand_in, temp.path(), "mistral-7b").await.unwrap_err();
        let text = format!("{error} {error:?} {:?}", puller(&stand_in));
        assert!(text.contains(words) && text.contains("mistralai/Mistral-7B-Instruct-v0.3"), "{text}");
        assert!(!text.contains(TOKEN), "{text}");
        assert_eq!(stand_in.asked().len(), 1, "a refusal is not tried again");
    }
    let stand_in = StandIn::start(folder_files()).await;
    let temp = TempDir::new().unwrap();
    let error = pull(&stand_in, temp.path(), "nobody/nothing").await.unwrap_err();
    assert!(matches!(error, PullError::Missing { .. }), "{error}");
    stand_in.shared.listing_faults.lock().unwrap().extend([Fault::Status(502, ""), Fault::Status(429, "")]);
    pull(&stand_in, temp.path(), "mistral-7b").await.unwrap();
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_does_not_follow_a_redirect() {
    let stand_in = StandIn::start(vec![HubFile::large("m.gguf", content(5000))]).await;
    let other = stand_in.second_host().await;
    *stand_in.shared.elsewhere.lock().unwrap() = Some(other.address);
    stand_in.fail([Fault::Break(1000)]);
    let temp = TempDir::new().unwrap();
    pull(&stand_in, temp.path(), "owner/model").await.unwrap();
    let authorization: Vec<_> =
        stand_in.asked().into_iter().map(|asked| (asked.port, asked.range, asked.authorization)).collect();
    let (hub, host) = (stand_in.address.port(), other.address.port());
    let (range, bearer) = (Some("bytes=1000-".to_owned()), Some(format!("Bearer {TOKEN}")));
    assert_eq!(
        authorization,
        [(hub, None, bearer.clone()), (host, None, None), (hub, range.clone(), bearer), (host, range, None)]
    );

    stand_in.fail([Fault::Loop]);
    let error = pull(&stand_in, &temp.path().join("other"), "owner/model").await.unwrap_err().to_string();
    assert!(error.contains("redirects too often"), "{error}");
}

#[tokio::test]
async fn a_model_that_does_not_fit_the_disk_is_refused_before_it_is_fetched() {
    let mut file = HubFile::large("m.gguf", content(10));
    file.size = 1 << 60;
    let stand_in = StandIn::start(vec![file]).await;
    let temp = TempDir::new().unwrap();
    let error = pull(&stand_in, temp.path(), "owner/model").await.unwrap_err();
    assert!(matches!(error, PullError::Space { needed, .. } if needed == 1 << 60), "{error}");
    assert!(error.to_string().contains("are needed"), "{error}");
    assert!(stand_in.asked().is_empty());
    assert!(names(temp.path()).is_empty());
}

#[tokio::test]
async fn two_pulls_of_one_file_do_not_write_over_each_other() {
    let stand_in = StandIn::start(vec![HubFile::large("m.gguf", content(10))]).await;
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("model.part")).unwrap();
    let held = fs::File::create(temp.path().join("model.part/m.gguf.part")).unwrap();
    held.lock().unwrap();
    let error = pull(&stand_in, temp.path(), "owner/model").await.unwrap_err();
    assert!(matches!(error, PullError::Busy(_)), "{error}");
}

#[tokio::test]
async fn a_repository_s_gguf_is_taken_by_name_or_when_it_is_the_only_one() {
    let two = vec![HubFile::large("a.gguf", content(10)), HubFile::large("b.gguf", content(20))];
    let stand_in = StandIn::start(two).await;
    let temp = TempDir::new().unwrap();
    let error = pull(&stand_in, temp.path(), "owner/model").await.unwrap_err().to_string();
    assert!(error.contains("several GGUF files") && error.contains("a.gguf, b.gguf"), "{error}");
    let error = pull(&stand_in, temp.path(), "owner/model:c.gguf").await.unwrap_err().to_string();
    assert!(error.contains("has no file c.gguf"), "{error}");
    pull(&stand_in, temp.path(), "owner/model:b.gguf").await.unwrap();
    assert!(resolve(temp.path(), "model").unwrap().ends_with("model/b.gguf"));
    pull(&stand_in, temp.path(), "owner/model:a.gguf").await.unwrap();
    assert!(resolve(temp.path(), "owner/model:a.gguf").unwrap().ends_with("model/a.gguf"));
    assert!(resolve(temp.path(), "model").unwrap_err().contains("several GGUF files"));

    let none = StandIn::start(vec![HubFile::small("README.md", b"")]).await;
    let error = pull(&none, temp.path(), "owner/empty").await.unwrap_err().to_string();
    assert!(error.contains("nor a GGUF file"), "{error}");
}

#[tokio::test]
async fn what_is_no_hub_is_said_to_be_none() {
    for endpoint in ["ftp://host", "nonsense", "http://"] {
        let error = Hub::new(endpoint, None).map(drop).unwrap_err();
        assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
    }
    assert!(matches!(Hub::new("http://host", Some("a\nb")), Err(PullError::Token)));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let temp = TempDir::new().unwrap();
    let mut puller = puller(&StandIn::start(Vec::new()).await);
    puller.hub = Hub::new(&format!("http://{closed}"), None).unwrap();
    let error = puller.pull(&Source::parse("mistral-7b").unwrap(), temp.path()).await.unwrap_err();
    assert!(matches!(error, PullError::Broken { attempts: 3, .. }), "{error}");
}

#[test]
fn names_are_understood_or_refused() {
    for name in ["mistral-7b", "mistral-7b-q4", "owner/model", "owner/model:file.Q4_K_M.gguf"] {
        Source::parse(name).unwrap();
    }
    for name in ["", "llama", "a/b/c", "../x", "a/..", "/a", "a/", "a/b:../x.gguf", "a/b:x.bin", "a b/c", "a/b?x"] {
        assert!(matches!(Source::parse(name), Err(PullError::Source(_))), "{name}");
    }
}

#[test]
fn models_are_found_by_path_and_by_name_in_every_folder() {
    let temp = TempDir::new().unwrap();
    let (store, shipped) = (temp.path().join("store"), temp.path().join("shipped"));
    fs::create_dir_all(shipped.join("demo")).unwrap();
    fs::write(shipped.join("demo/config.json"), "{}").unwrap();
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("synth.gguf"), "GGUF").unwrap();
    fs::create_dir_all(store.join("half.part")).unwrap();
    let directories = Directories::new(store.clone(), [shipped.clone()]);
    assert_eq!(directories.resolve("demo").unwrap(), shipped.join("demo"));
    assert_eq!(directories.resolve("synth").unwrap(), store.join("synth.gguf"));
    assert_eq!(directories.resolve("synth.gguf").unwrap(), store.join("synth.gguf"));
    let path = shipped.join("demo");
    assert_eq!(directories.resolve(path.to_str().unwrap()).unwrap(), path);
    let present: Vec<_> = directories.present().into_iter().map(|model| model.name).collect();
    assert_eq!(present, ["demo", "synth"]);
    let unknown = directories.resolve("gpt").unwrap_err().to_string();
    assert!(unknown.contains("mistral-7b, mistral-7b-q4"), "{unknown}");
    let empty = Directories::new(store, []).resolve("demo").unwrap_err().to_string();
    assert!(empty.contains("GATEWAY_MODELS_DIR"), "{empty}");
}
