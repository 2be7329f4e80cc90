//! The header of a GGUF file, versions 2 and 3: metadata and where each tensor lies.
//!
//! Values borrow from the file. Every count and length is checked against the bytes that are left before it
//! is used, and nothing is reserved on a count's word: what is held grows with what was read.

use std::{collections::HashMap, ops::Range};

use candle_core::quantized::GgmlDType;

use super::reader::{Reader, Value};
use crate::loader::Dtype;

const MAX_DIMENSIONS: u32 = 4;
const MAX_ALIGNMENT: u64 = 1 << 20;
const DEFAULT_ALIGNMENT: u64 = 32;

/// What a GGUF file says of itself.
#[derive(Debug)]
pub(super) struct Header<'a> {
    /// Metadata by key.
    pub(super) metadata: HashMap<&'a str, Value<'a>>,
    /// Tensors, in the file's order.
    pub(super) tensors: Vec<TensorInfo<'a>>,
}

/// A tensor's place, checked to lie within the file.
#[derive(Debug)]
pub(super) struct TensorInfo<'a> {
    pub(super) name: &'a str,
    /// Rows first, as everywhere here; the file has the row's length first.
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    /// In the file.
    pub(super) range: Range<usize>,
}

/// Parses the header of a whole file; the error is a clause to be put after the file's name.
pub(super) fn parse(file: &[u8]) -> Result<Header<'_>, String> {
    let mut reader = Reader::new(file);
    if reader.bytes(4)? != b"GGUF" {
        return Err("does not begin with GGUF".to_owned());
    }
    match reader.u32()? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => return Err("is a big-endian GGUF file".to_owned()),
        version => return Err(format!("is GGUF version {version}; supported are 2 and 3")),
    }
    let tensor_count = reader.u64()?;
    let metadata_count = reader.u64()?;
    let metadata = read_metadata(&mut reader, metadata_count)?;
    let mut infos = Vec::new();
    for index in 0..tensor_count {
        infos.push(read_info(&mut reader).map_err(|reason| format!("tensor {index} of {tensor_count}: {reason}"))?);
    }
    let alignment = alignment(&metadata)?;
    let data = (reader.position() as u64).next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(infos.len());
    for info in infos {
        let name = info.name;
        let place = locate(info, data, alignment, file.len());
        tensors.push(place.map_err(|reason| format!("tensor {name}: {reason}"))?);
    }
    check_disjoint(&tensors)?;
    Ok(Header { metadata, tensors })
}

fn read_metadata<'a>(reader: &mut Reader<'a>, count: u64) -> Result<HashMap<&'a str, Value<'a>>, String> {
    let mut metadata = HashMap::new();
    for index in 0..count {
        let key = reader.name().map_err(|reason| format!("metadata {index} of {count}: {reason}"))?;
        let value = reader.value().map_err(|reason| format!("metadata {key}: {reason}"))?;
        if metadata.insert(key, value).is_some() {
            return Err(format!("metadata {key} is there twice"));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &HashMap<&str, Value<'_>>) -> Result<u64, String> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => match value.unsigned() {
            Some(alignment) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => Ok(alignment),
            _ => Err(format!("general.alignment is {value}, not a power of two up to {MAX_ALIGNMENT}")),
        },
    }
}

/// A tensor's entry as it stands in the file.
struct RawInfo<'a> {
    name: &'a str,
    dimensions: Vec<u64>,
    dtype: u32,
    offset: u64,
}

fn read_info<'a>(reader: &mut Reader<'a>) -> Result<RawInfo<'a>, String> {
    let name = reader.name()?;
    let count = reader.u32()?;
    if !(1..=MAX_DIMENSIONS).contains(&count) {
        return Err(format!("{name} has {count} dimensions; 1 to {MAX_DIMENSIONS} are possible"));
    }
    let dimensions = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    Ok(RawInfo { name, dimensions, dtype: reader.u32()?, offset: reader.u64()? })
}

fn locate<'a>(info: RawInfo<'a>, data: u64, alignment: u64, file: usize) -> Result<TensorInfo<'a>, String> {
    let (dtype, block, block_bytes) = dtype(info.dtype)?;
    let row = info.dimensions[0];
    if !row.is_multiple_of(block) {
        return Err(format!("rows of {row} are not a multiple of its type's block of {block}"));
    }
    if !info.offset.is_multiple_of(alignment) {
        return Err(format!("offset {} is not a multiple of the alignment {alignment}", info.offset));
    }
    let rows = info.dimensions[1..].iter().try_fold(1, |rows: u64, &n| rows.checked_mul(n));
    let bytes = rows.and_then(|rows| (row / block).checked_mul(block_bytes)?.checked_mul(rows));
    let begin = data.checked_add(info.offset);
    let end = begin.zip(bytes).and_then(|(begin, bytes)| begin.checked_add(bytes));
    let (Some(begin), Some(end)) = (begin, end.filter(|&end| end <= file as u64)) else {
        return Err(format!(
            "{:?} numbers at offset {} do not lie within the {file} bytes of the file (truncated?)",
            info.dimensions, info.offset
        ));
    };
    let shape = info.dimensions.iter().rev().map(|&n| usize::try_from(n).map_err(|_| format!("{n} is too large")));
    Ok(TensorInfo {
        name: info.name,
        shape: shape.collect::<Result<_, _>>()?,
        dtype,
        range: begin as usize..end as usize,
    })
}

fn check_disjoint(tensors: &[TensorInfo<'_>]) -> Result<(), String> {
    let mut places: Vec<_> = tensors.iter().map(|info| (info.range.start, info.range.end, info.name)).collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        if pair[0].1 > pair[1].0 {
            return Err(format!("tensors {} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(())
}

/// The type of that id, the numbers in one of its blocks and the block's bytes.
fn dtype(id: u32) -> Result<(Dtype, u64, u64), String> {
    let quantized = match id {
        0 => return Ok((Dtype::F32, 1, 4)),
        1 => return Ok((Dtype::F16, 1, 2)),
        30 => return Ok((Dtype::Bf16, 1, 2)),
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        other => {
            return Err(format!(
                "its type is {}; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K",
                unsupported(other)
            ));
        }
    };
    Ok((Dtype::Quantized(quantized), quantized.block_size() as u64, quantized.type_size() as u64))
}

/// The names that llama.cpp gives the types which are not supported here.
fn unsupported(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("unknown ({other})"),
    };
    name.to_owned()
}
