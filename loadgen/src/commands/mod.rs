//! One file per command.

mod analyze;
mod json_output;
mod run;
mod sampler;
mod server_side;

pub use analyze::analyze;
pub use run::run;
