//! Broken and hostile files: each is an error that names the file, never a panic, a hang or an abort.
//!
//! A false length that was believed would abort the test with an allocation failure.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use engine::{
    loader::{LoadOptions, load},
    synth::Format,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use super::{assert_refused, tiny};

/// Loads, and checks that an error names the file or folder.
fn survive(path: &Path) {
    if let Err(error) = load(path, LoadOptions::default()) {
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.len() < 10_000, "a message of {} bytes", message.len());
    }
}

/// Overwrites a few bytes within the first `within`, loads `path`, and puts them back; many times.
fn mutate(target: &Path, path: &Path, within: usize, rounds: u32) {
    let original = fs::read(target).unwrap();
    let file = OpenOptions::new().write(true).open(target).unwrap();
    for round in 0..rounds {
        let mut random = ChaCha8Rng::seed_from_u64(round.into());
        let mut places = Vec::new();
        for _ in 0..random.random_range(1..=4) {
            let at = random.random_range(0..within.min(original.len()));
            let length = *[1, 1, 4, 8].get(random.random_range(0..4)).unwrap();
            let end = original.len().min(at + length);
            let mut bytes = vec![0; end - at];
            match random.random_range(0..3) {
                0 => random.fill_bytes(&mut bytes),
                1 => bytes.fill(0xff),
                _ => bytes.fill(0),
            }
            file.write_all_at(&bytes, at as u64).unwrap();
            places.push(at..end);
        }
        survive(path);
        for place in places {
            file.write_all_at(&original[place.clone()], place.start as u64).unwrap();
        }
    }
    load(path, LoadOptions::default()).unwrap();
}

/// Cuts the file at every length below 300 and at some beyond.
fn truncate(target: &Path, path: &Path) {
    let original = fs::read(target).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let beyond: Vec<_> = (0..100).map(|_| random.random_range(0..original.len())).collect();
    for length in (0..300.min(original.len())).chain(beyond).chain([original.len() - 1]) {
        fs::write(target, &original[..length]).unwrap();
        let error = load(path, LoadOptions::default()).map(drop).unwrap_err().to_string();
        assert!(error.contains(target.to_str().unwrap()), "{length}: {error}");
    }
}

#[test]
fn a_mutated_gguf_header_is_an_error_or_a_model() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("tiny.gguf");
    tiny(&path, Format::GgufQ4KM);
    // The fixed part and the first keys, then all of the header: metadata, tokens and tensor infos.
    mutate(&path, &path, 200, 2000);
    mutate(&path, &path, 16_000, 3000);
    truncate(&path, &path);
}

#[test]
fn a_mutated_safetensors_header_is_an_error_or_a_model() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("tiny");
    tiny(&path, Format::Safetensors);
    mutate(&path.join("model.safetensors"), &path, 2500, 2000);
    mutate(&path.join("config.json"), &path, 10_000, 2000);
}

#[test]
fn a_truncated_folder_is_an_error_that_names_the_file() {
    for name in ["model.safetensors", "config.json"] {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("tiny");
        tiny(&path, Format::Safetensors);
        // The last byte of a JSON file is a newline, which nothing misses.
        let target = path.join(name);
        let text = fs::read(&target).unwrap();
        fs::write(&target, text.trim_ascii_end()).unwrap();
        if name == "config.json" || text.trim_ascii_end().len() == text.len() {
            truncate(&target, &path);
        }
    }
}

#[test]
fn a_safetensors_header_that_lies_is_refused() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("tiny");
    tiny(&path, Format::Safetensors);
    let target = path.join("model.safetensors");
    // Eight tensors of 2^61 - 4 bytes: with the header's length, their sum overflows 64 bits.
    let size = (1_u64 << 61) - 4;
    let wrapping: Vec<_> = (0..8_u64)
        .map(|n| {
            format!(
                "\"t{n}\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                size / 4,
                n * size,
                (n + 1) * size
            )
        })
        .collect();
    let cases = [
        (format!("{{{}}}", wrapping.join(",")), "are not within the 8 bytes of data"),
        ("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}".to_owned(), "shape"),
        ("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}".to_owned(), "8..4"),
        ("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}".to_owned(), "F8_E4M3"),
        ("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}".to_owned(), "overlap"),
        ("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}".to_owned(), "twice"),
        ("[".repeat(100_000), "not valid"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), "not valid"),
    ];
    for (header, words) in cases {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        fs::write(&target, bytes).unwrap();
        assert_refused(&path, &["model.safetensors", words]);
    }
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 99_999_999] {
        fs::write(&target, [&length.to_le_bytes()[..], b"{}"].concat()).unwrap();
        assert_refused(&path, &["model.safetensors", &length.to_string()]);
    }
}

/// A GGUF header: version, tensor count, metadata count, then `rest`.
fn gguf(version: u32, tensors: u64, metadata: u64, rest: &[u8]) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes()[..], &tensors.to_le_bytes(), &metadata.to_le_bytes(), rest].concat()
}

/// A key `k` before a value of that type and bytes.
fn entry(kind: u32, value: &[u8]) -> Vec<u8> {
    [&1_u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), value].concat()
}

/// A tensor info named `t`.
fn info(dimensions: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let mut bytes = [&1_u64.to_le_bytes()[..], b"t", &(dimensions.len() as u32).to_le_bytes()].concat();
    dimensions.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.extend(dtype.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

#[test]
fn a_gguf_header_that_lies_is_refused() {
    let huge = u64::MAX.to_le_bytes();
    let array = |kind: u32, length: u64| [&kind.to_le_bytes()[..], &length.to_le_bytes()].concat();
    let nested: Vec<u8> = std::iter::repeat_n(array(9, 1), 1000).flatten().collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GGML".to_vec(), "does not begin with GGUF"),
        (gguf(1, 0, 0, &[]), "version 1"),
        (gguf(3_u32.swap_bytes(), 0, 0, &[]), "big-endian"),
        (gguf(3, 0, u64::MAX, &[]), "metadata 0 of"),
        (gguf(3, u64::MAX, 0, &[]), "tensor 0 of"),
        (gguf(3, 0, 1, &huge), "a name of"),
        (gguf(3, 0, 1, &entry(8, &huge)), "truncated"),
        (gguf(3, 0, 1, &entry(99, &[])), "unknown value type 99"),
        (gguf(3, 0, 1, &entry(9, &array(10, u64::MAX))), "an array of"),
        (gguf(3, 0, 1, &entry(9, &array(0, 1 << 40))), "truncated"),
        (gguf(3, 0, 1, &entry(9, &array(8, u64::MAX))), "truncated"),
        (gguf(3, 0, 1, &entry(9, &nested)), "nested"),
        (gguf(3, 0, 2, &[entry(7, &[1]), entry(7, &[1])].concat()), "twice"),
        (gguf(3, 1, 0, &info(&[], 0, 0)), "0 dimensions"),
        (gguf(3, 1, 0, &info(&[1; 5], 0, 0)), "5 dimensions"),
        (gguf(3, 1, 0, &info(&[u64::MAX], 0, 0)), "do not lie within"),
        (gguf(3, 1, 0, &info(&[1 << 32, 1 << 32], 0, 0)), "do not lie within"),
        (gguf(3, 1, 0, &info(&[4], 0, u64::MAX - 31)), "do not lie within"),
        (gguf(3, 1, 0, &info(&[4], 0, 1)), "not a multiple of the alignment"),
        (gguf(3, 1, 0, &info(&[31], 8, 0)), "block of 32"),
        (gguf(3, 1, 0, &info(&[256], 23, 0)), "IQ4_XS"),
        (gguf(3, 1, 0, &info(&[256], 77, 0)), "unknown (77)"),
        (gguf(3, 2, 0, &[info(&[4], 0, 0), info(&[4], 0, 0), vec![0; 64]].concat()), "overlap"),
        (gguf(3, 0, 0, &[]), "general.architecture is missing"),
    ];
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("hostile.gguf");
    for (bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        assert_refused(&path, &[words]);
    }
}

#[test]
fn what_is_not_a_regular_file_is_not_opened() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("tiny");
    tiny(&path, Format::Safetensors);
    fs::remove_file(path.join("config.json")).unwrap();
    fs::create_dir(path.join("config.json")).unwrap();
    assert_refused(&path, &["config.json", "not a regular file"]);

    fs::remove_dir(path.join("config.json")).unwrap();
    let sparse = File::create(path.join("config.json")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert_refused(&path, &["config.json", "is longer than"]);
}
