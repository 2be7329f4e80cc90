//! The header of a safetensors file: which tensor lies where.
//!
//! Ours rather than the `safetensors` crate's, whose check against the file's length overflows on a
//! hostile header (a panic where overflow is checked). The header is JSON behind its length; every range it names is checked against the file,
//! and tensors may not overlap.

use std::{borrow::Cow, collections::HashMap, fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use super::{Dtype, Tensor, map::map};
use crate::error::LoadError;

/// The format's own bound.
const MAX_HEADER: usize = 100_000_000;

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The header as it stands: every tensor's entry, without the free-form `__metadata__`.
struct Header<'a>(HashMap<String, Entry<'a>>);

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry = map.next_value().map_err(|error| M::Error::custom(format!("tensor {name}: {error}")))?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(M::Error::custom(format!("tensor {name} is there twice")));
            }
        }
        Ok(Header(entries))
    }
}

/// The tensors of the file, by name.
pub(super) fn open(path: &Path) -> Result<HashMap<String, Tensor>, LoadError> {
    let file = map(path)?;
    let (header, data) = split(&file).map_err(|reason| LoadError::invalid(path, reason))?;
    let entries = parse(header, file.len() - data).map_err(|reason| LoadError::invalid(path, reason))?;
    let tensor = |(name, entry): (String, Located)| {
        let range = data + entry.begin..data + entry.end;
        let tensor = Tensor::new(name.clone(), entry.shape, entry.dtype, file.clone(), range);
        (name, tensor)
    };
    Ok(entries.into_iter().map(tensor).collect())
}

/// The header's bytes and where the data behind it begins.
fn split(file: &[u8]) -> Result<(&[u8], usize), String> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("truncated: {} bytes are too few for a safetensors header", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    let inside = usize::try_from(length).ok().filter(|&length| length <= MAX_HEADER && length <= rest.len());
    let Some(length) = inside else {
        return Err(format!(
            "truncated or not safetensors: a header of {length} bytes in a file of {} bytes",
            file.len()
        ));
    };
    Ok((&rest[..length], 8 + length))
}

/// A tensor's place in the data, checked.
struct Located {
    dtype: Dtype,
    shape: Vec<usize>,
    begin: usize,
    end: usize,
}

fn parse(header: &[u8], data: usize) -> Result<HashMap<String, Located>, String> {
    let Header(entries) =
        serde_json::from_slice(header).map_err(|error| format!("the safetensors header is not valid: {error}"))?;
    let mut located = HashMap::with_capacity(entries.len());
    for (name, entry) in entries {
        let place = locate(entry, data).map_err(|reason| format!("tensor {name}: {reason}"))?;
        located.insert(name, place);
    }
    check_disjoint(&located)?;
    Ok(located)
}

fn locate(entry: Entry<'_>, data: usize) -> Result<Located, String> {
    let (dtype, width) = match &*entry.dtype {
        "F32" => (Dtype::F32, 4),
        "F16" => (Dtype::F16, 2),
        "BF16" => (Dtype::Bf16, 2),
        other => return Err(format!("its numbers are {other:?}; supported are F32, F16 and BF16")),
    };
    let (begin, end) = entry.data_offsets;
    if begin > end || end > data {
        return Err(format!("its bytes {begin}..{end} are not within the {data} bytes of data (truncated file?)"));
    }
    let bytes = entry.shape.iter().try_fold(width, |product: usize, &n| product.checked_mul(n));
    if bytes != Some(end - begin) {
        return Err(format!(
            "shape {:?} of {} does not take the {} bytes it has",
            entry.shape,
            entry.dtype,
            end - begin
        ));
    }
    Ok(Located { dtype, shape: entry.shape, begin, end })
}

fn check_disjoint(located: &HashMap<String, Located>) -> Result<(), String> {
    let mut places: Vec<_> = located.iter().map(|(name, place)| (place.begin, place.end, name)).collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        if pair[0].1 > pair[1].0 {
            return Err(format!("tensors {} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(())
}
