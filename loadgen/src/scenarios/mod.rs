//! What users do: which prompts they draw, and the attack that runs them.

mod attack;
mod corpus;
mod signals;

pub use attack::{Ending, attack};
pub use corpus::{Corpus, Length, Prompt};
