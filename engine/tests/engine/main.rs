//! The engine from outside, against goldens that other implementations made.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

mod tokenizer;
