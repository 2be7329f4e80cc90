//! Integration tests of the gateway, in one binary.

mod model_pull;
