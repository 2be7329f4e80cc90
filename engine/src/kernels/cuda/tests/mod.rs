//! Every kernel against a plain computation, on a GPU, or on an emulated one with `engine/cuda/emulate` before the
//! command; under `compute-sanitizer` these are what it watches.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod attention;
mod draws;
mod formats;
mod memory;
mod paging;
mod products;
mod rope;
mod rows;
mod sample;
mod sequences;

use std::sync::Arc;

use half::{bf16, f16};

use super::{Buffer, Element, Gpu};

fn gpu() -> Arc<Gpu> {
    Gpu::open().expect("a GPU, or engine/cuda/emulate before the command")
}

/// Numbers between -1 and 1, other ones for every seed.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A number as rows of that kind have it.
fn rounded(number: f32, element: Element) -> f32 {
    match element {
        Element::F32 => number,
        Element::F16 => f16::from_f32(number).to_f32(),
        Element::Bf16 => bf16::from_f32(number).to_f32(),
    }
}

fn to_bytes(numbers: &[f32], element: Element) -> Vec<u8> {
    let bytes = |&number: &f32| match element {
        Element::F32 => number.to_le_bytes().to_vec(),
        Element::F16 => f16::from_f32(number).to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f32(number).to_le_bytes().to_vec(),
    };
    numbers.iter().flat_map(bytes).collect()
}

fn from_bytes(bytes: &[u8], element: Element) -> Vec<f32> {
    bytes
        .chunks_exact(element.bytes())
        .map(|bytes| match (element, bytes) {
            (Element::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Element::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Element::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            _ => f32::NAN,
        })
        .collect()
}

fn upload(gpu: &Arc<Gpu>, numbers: &[f32], element: Element) -> Buffer<u8> {
    Buffer::of(gpu, &to_bytes(numbers, element)).unwrap()
}

/// Rows whose every byte is what no kernel may leave.
fn poisoned(gpu: &Arc<Gpu>, numbers: usize, element: Element) -> Buffer<u8> {
    Buffer::of(gpu, &vec![0xff; numbers * element.bytes()]).unwrap()
}

/// What rounding to numbers of a kind may cost a result, as a share of its length.
fn tolerance(element: Element) -> f64 {
    match element {
        Element::F32 => 1e-5,
        Element::F16 => 2e-3,
        Element::Bf16 => 1.5e-2,
    }
}

/// `found` is `expected` but for a share of its length.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], share: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let length = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|number| number * number).sum::<f64>().sqrt();
    let difference = length(&mut found.iter().zip(expected).map(|(found, expected)| f64::from(*found) - expected));
    let whole = length(&mut expected.iter().copied());
    // Not `>`: what is no number is not close.
    assert!(difference <= share * whole, "{what}: off by {:.2e} of its length", difference / whole);
}

/// How many rows are put together.
const TOGETHER: [usize; 7] = [1, 7, 8, 9, 33, 64, 100];

/// Every number is as it should be but for a share of the largest of its row.
#[track_caller]
fn assert_rows_close(found: &[f32], expected: &[f64], width: usize, share: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
        let largest = expected.iter().fold(0.0, |largest: f64, number| largest.max(number.abs()));
        for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let close = (f64::from(found) - expected).abs() <= share * largest;
            assert!(close, "{what}: {found} is not {expected} at {at} of row {row}, whose largest is {largest}");
        }
    }
}
