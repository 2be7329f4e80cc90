//! A load generator for LLM servers that knows its own error.
//!
//! It is a black-box HTTP client: it knows no code of the gateway and declares its own wire structs. The way of
//! a request through the files:
//!
//! - `cli`: flags → [`Plan`](cli::Plan);
//! - `commands`: one file per command; `run` is the whole of a load test;
//! - `scenarios`: users in a closed loop (goose) and the prompts they draw;
//! - `client`: sends one request, reads its stream, stamps → [`RequestRecord`](record::RequestRecord);
//! - `collect`: records → JSONL, rows, spans and aggregates, on a thread of its own;
//! - `spans`: records → CLIENT spans, exported where OpenTelemetry's variables say;
//! - `server`: what the server says of itself meanwhile;
//! - `stats`: aggregates → figures and verdicts, without clock or I/O;
//! - `report`: figures → terminal and JSON; the progress line.
//!
//! Only `scenarios/attack.rs` knows goose, and no figure comes from it.

pub mod cli;
pub mod client;
pub mod collect;
pub mod commands;
pub mod record;
pub mod report;
pub mod scenarios;
pub mod server;
pub mod spans;
pub mod stats;
