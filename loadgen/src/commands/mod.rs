//! One file per command.

mod run;
mod sampler;
mod server_side;

pub use run::run;
