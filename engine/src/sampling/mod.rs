//! Logits to a token: penalties, temperature, top-k, top-p, min-p, and a draw seeded per request.
//!
//! A sampler's randomness is its own, so the same request with the same seed draws the same tokens
//! whatever else is in the batch: one random number per token, and none for a greedy one.

mod draw;
mod scan;

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::generation::{Sampling, TokenLogprob};

/// Draws one request's tokens.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    logprobs: Option<u8>,
    rng: ChaCha8Rng,
    counts: HashMap<u32, Count>,
}

/// How often a token was seen.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    in_prompt: bool,
    generated: u32,
    /// Its logit before penalties, in the row at hand.
    logit: f32,
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub id: u32,
    /// Its logprob under the model, if asked for.
    pub logprob: Option<TokenLogprob>,
}

impl Sampler {
    /// A sampler that has seen `prompt`.
    pub fn new(sampling: Sampling, logprobs: Option<u8>, prompt: &[u32]) -> Self {
        let mut counts: HashMap<u32, Count> = HashMap::new();
        if sampling.repetition_penalty != 1.0 {
            for &id in prompt {
                counts.entry(id).or_default().in_prompt = true;
            }
        }
        Self { rng: ChaCha8Rng::seed_from_u64(sampling.seed), sampling, logprobs, counts }
    }

    /// Draws the next token; penalties are left in `logits`. `None` where no token has a finite logit that is the
    /// highest: the model broke down.
    pub fn sample(&mut self, logits: &mut [f32]) -> Option<Sampled> {
        let model = self.logprobs.map(|count| Logprobs::of(logits, usize::from(count)));
        self.penalize(logits);
        let id = match self.sampling.temperature == 0.0 {
            true => scan::position_of_highest(logits),
            false => draw::draw(logits, &self.sampling, self.rng.random()),
        };
        if !logits[id as usize].is_finite() {
            return None;
        }
        let logit = self.counts.get(&id).map_or(logits[id as usize], |count| count.logit);
        if self.penalizes() {
            self.counts.entry(id).or_default().generated += 1;
        }
        Some(Sampled { id, logprob: model.map(|model| model.of_token(logit)) })
    }

    fn penalizes(&self) -> bool {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    /// Repetition as in CTRL (arXiv 1909.05858), over prompt and answer; presence and frequency as OpenAI
    /// documents them, over the answer.
    fn penalize(&mut self, logits: &mut [f32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        for (&id, count) in &mut self.counts {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            count.logit = *logit;
            if !logit.is_finite() {
                continue;
            }
            if count.in_prompt || count.generated > 0 {
                *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            }
            if count.generated > 0 {
                *logit -= presence_penalty + frequency_penalty * count.generated as f32;
            }
            // The least penalties divide beyond what there are numbers for.
            *logit = logit.clamp(f32::MIN, f32::MAX);
        }
    }
}

/// What a row says of tokens' natural-log probabilities, before penalties.
struct Logprobs {
    log_total: f32,
    top: Vec<(u32, f32)>,
}

impl Logprobs {
    fn of(logits: &[f32], count: usize) -> Self {
        let best = scan::highest(logits);
        let total: f64 = scan::block_sums(logits, best, 1.0).iter().sum();
        let log_total = best + total.ln() as f32;
        let top = scan::top(logits, count);
        Self { log_total, top: top.into_iter().map(|token| (token.id, token.value - log_total)).collect() }
    }

    fn of_token(self, logit: f32) -> TokenLogprob {
        TokenLogprob { logprob: logit - self.log_total, top: self.top }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn draws(sampling: Sampling, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, None, &[]);
        (0..count).map(|_| sampler.sample(&mut logits.to_vec()).unwrap().id).collect()
    }

    fn seen(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut seen = draws(sampling, logits, 500);
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(draws(sampling, &[0.0, 3.0, 3.0, f32::NAN], 1), [1]);
    }

    #[test]
    fn of_a_model_that_broke_down_nothing_is_drawn() {
        for broken in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [0.0, f32::INFINITY, 1.0]] {
            for sampling in [Sampling::default(), Sampling { temperature: 0.0, ..Sampling::default() }] {
                assert_eq!(Sampler::new(sampling, Some(2), &[]).sample(&mut broken.clone()), None);
            }
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [4.0f32, 3.0, 2.0, 1.0, 0.0].map(f32::ln);
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        for (sampling, expected) in [
            (Sampling { ..base.clone() }, vec![0, 1, 2, 3]),
            (Sampling { top_k: 2, ..base.clone() }, vec![0, 1]),
            (Sampling { top_p: 0.3, ..base.clone() }, vec![0]),
            (Sampling { top_p: 0.6, ..base.clone() }, vec![0, 1]),
            (Sampling { top_k: 3, top_p: 0.5, ..base.clone() }, vec![0, 1]),
            (Sampling { min_p: 0.5, ..base.clone() }, vec![0, 1, 2]),
        ] {
            assert_eq!(seen(sampling.clone(), &logits), expected, "{sampling:?}");
        }
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let logits = [0.75f32.ln(), 0.25f32.ln()];
        let sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        let drawn = draws(sampling.clone(), &logits, 20_000);
        let share = drawn.iter().filter(|&&id| id == 0).count() as f64 / drawn.len() as f64;
        assert!((share - 0.75).abs() < 0.02, "{share}");
        assert_eq!(drawn, draws(sampling.clone(), &logits, 20_000));
        assert_ne!(drawn, draws(Sampling { seed: 8, ..sampling }, &logits, 20_000));
    }

    #[test]
    fn penalties_move_what_was_seen() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut repeated = Sampler::new(Sampling { repetition_penalty: 2.0, ..greedy.clone() }, None, &[0]);
        assert_eq!(repeated.sample(&mut [3.0, 2.0]).unwrap().id, 1, "3 / 2 < 2");
        let mut frequent = Sampler::new(Sampling { frequency_penalty: 0.4, ..greedy.clone() }, None, &[0]);
        let ids: Vec<_> = (0..4).map(|_| frequent.sample(&mut [1.0, 0.5]).unwrap().id).collect();
        assert_eq!(ids, [0, 0, 1, 0], "the prompt does not count");
        let mut present = Sampler::new(Sampling { presence_penalty: 0.6, ..greedy }, None, &[]);
        let ids: Vec<_> = (0..3).map(|_| present.sample(&mut [1.0, 0.5]).unwrap().id).collect();
        assert_eq!(ids, [0, 1, 0], "once, however often");
    }

    #[test]
    fn the_least_penalty_leaves_numbers() {
        for repetition_penalty in [f32::from_bits(1), 1e-38] {
            let mut sampler = Sampler::new(Sampling { repetition_penalty, ..Sampling::default() }, None, &[0]);
            assert_eq!(sampler.sample(&mut [10.0, 2.0]).unwrap().id, 0);
        }
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let sampling = Sampling { temperature: 0.0, presence_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, Some(2), &[]);
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let first = sampler.sample(&mut logits.to_vec()).unwrap();
        let second = sampler.sample(&mut logits.to_vec()).unwrap();
        assert_eq!((first.id, second.id), (0, 1));
        let logprob = second.logprob.as_ref().map_or(0.0, |logprob| logprob.logprob);
        assert!((logprob - 0.3f32.ln()).abs() < 1e-6);
        let top: Vec<_> = second.logprob.iter().flat_map(|logprob| &logprob.top).map(|top| top.0).collect();
        assert_eq!(top, [0, 1]);
    }
}
