//! The gateway from outside: real sockets on port 0, a real engine on a small model with random weights.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancel;
mod debug_requests;
mod generate;
mod lifecycle;
mod malformed;
mod model_pull;
mod origin;
mod overload;
mod prefix_cache;
mod program;
mod rate_limit;
mod routes;
mod streams;
mod support;
