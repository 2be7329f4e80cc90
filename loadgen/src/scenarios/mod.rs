//! What users do: which prompts they draw, and the attack that runs them.

mod attack;
mod corpus;

pub use attack::{Ending, attack};
pub use corpus::{Corpus, Length, Prompt};
