//! One file per resource: read, ask the backend, render.

pub mod debug;
pub mod fallback;
pub mod generate;
pub mod health;
pub mod metrics;
pub mod models;
mod reply;
pub mod tokenize;
