//! The JSON and event shapes of the HTTP interface; no behaviour besides checking and rendering.

pub mod body;
pub mod debug;
pub mod generate;
pub mod models;
pub mod sse;
pub mod timings;
pub mod tokenize;
