//! Models on this machine: found by name, fetched from a Hub, listed, made up.
//!
//! - [`directories`]: where models lie, and which path a name means;
//! - [`source`]: what a name stands for at a Hub;
//! - [`hub`]: the Hub's two routes; `pull` drives them through broken connections to a whole model;
//! - [`command`]: `gateway model …`.
//!
//! Invariants: a model's folder appears under its name only when it is whole; a token goes to the Hub and to
//! no other host; no name from a Hub leads out of the model's folder.

pub mod command;
pub mod directories;
mod disk;
mod error;
pub mod hub;
mod progress;
mod pull;
pub mod source;

pub use command::ModelCommand;
pub use directories::{Directories, StoreError, resolve};
pub use error::PullError;
pub use hub::Hub;
pub use progress::Progress;
pub use pull::{Patience, Puller};
pub use source::Source;
