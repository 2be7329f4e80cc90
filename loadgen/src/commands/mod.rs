//! One file per command.

mod run;
mod sampler;

pub use run::run;
