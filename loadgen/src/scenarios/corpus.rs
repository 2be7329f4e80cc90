//! The prompts: a fixed set in the repository, drawn from a seed.
//!
//! Lengths are part of the load: of the set, and so of what is drawn, 60% are short (up to 20 words), 30%
//! medium (21 to 70), 10% long (71 to 200). The same seed, user and set give the same prompts in the same order.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// One JSON object per line: `{"length":"short","prompt":"…"}`.
const LINES: &str = include_str!("../../data/corpus.jsonl");

/// How long a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Up to 20 words.
    Short,
    /// 21 to 70 words.
    Medium,
    /// 71 to 200 words.
    Long,
}

/// One line of the set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Its class.
    pub length: Length,
    /// Its text.
    pub prompt: String,
}

/// The set.
#[derive(Debug, Clone)]
pub struct Corpus {
    prompts: Vec<Prompt>,
}

impl Corpus {
    /// The set compiled in.
    pub fn embedded() -> serde_json::Result<Self> {
        let prompts = LINES.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { prompts })
    }

    /// All prompts, in the order of their numbers.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// Draws a prompt, each with the same probability: its number and its text.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> (usize, &str) {
        let number = rng.random_range(0..self.prompts.len());
        (number, &self.prompts[number].prompt)
    }

    /// Draws prompts until they make `words` words: the number of the first, and the text of them all.
    ///
    /// Two such texts hardly ever begin alike for longer than one prompt, so no prefix cache knows them.
    pub fn draw_words(&self, rng: &mut ChaCha8Rng, words: usize) -> (usize, String) {
        let (number, first) = self.draw(rng);
        let mut text: Vec<&str> = first.split_whitespace().collect();
        while text.len() < words {
            text.extend(self.draw(rng).1.split_whitespace());
        }
        text.truncate(words);
        (number, text.join(" "))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn the_set_has_the_lengths_it_promises() {
        let corpus = Corpus::embedded().unwrap();
        let all = corpus.prompts().len();
        assert!(all >= 100);
        for (length, words, share) in
            [(Length::Short, 1..=20, 0.6), (Length::Medium, 21..=70, 0.3), (Length::Long, 71..=200, 0.1)]
        {
            let of_length: Vec<_> = corpus.prompts().iter().filter(|prompt| prompt.length == length).collect();
            assert_eq!(of_length.len() as f64, share * all as f64, "{length:?}");
            for prompt in of_length {
                let count = prompt.prompt.split_whitespace().count();
                assert!(words.contains(&count), "{count} words are not {length:?}: {}", prompt.prompt);
            }
        }
        let distinct: HashSet<_> = corpus.prompts().iter().map(|prompt| &prompt.prompt).collect();
        assert_eq!(distinct.len(), all, "a prompt is there twice");
    }

    #[test]
    fn words_are_drawn_to_the_number() {
        let corpus = Corpus::embedded().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for words in [1, 7, 300, 5000] {
            let (number, text) = corpus.draw_words(&mut rng, words);
            assert_eq!(text.split_whitespace().count(), words);
            let first: Vec<_> = corpus.prompts()[number].prompt.split_whitespace().take(words).collect();
            assert!(text.starts_with(&first.join(" ")));
        }
    }

    #[test]
    fn a_seed_decides_what_is_drawn() {
        let corpus = Corpus::embedded().unwrap();
        let draws = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..8).map(|_| corpus.draw(&mut rng).0).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }
}
