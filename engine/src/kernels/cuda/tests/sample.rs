//! Tokens and logprobs, against the CPU's sampler.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{Drawn, Penalties, SEQUENCE_FLOATS, SEQUENCE_INTS, SampleKernels, Wishes},
    *,
};
use crate::{
    generation::Sampling,
    sampling::{Sampled, Sampler},
};

const VOCABULARY: usize = 1000;

/// One sequence: what it wants, its rows, and the tokens that these take for granted.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) sampling: Sampling,
    pub(super) logprobs: Option<u8>,
    pub(super) prompt: Vec<u32>,
    pub(super) rows: Vec<Vec<f32>>,
    pub(super) guesses: Vec<u32>,
}

impl Case {
    pub(super) fn on_the_cpu(&self) -> Vec<Sampled> {
        let mut sampler = Sampler::new(self.sampling.clone(), self.logprobs, &self.prompt);
        let mut sampled = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let Some(token) = sampler.sample(&mut row.clone()) else { break };
            let right = self.guesses.get(index) == Some(&token.id);
            sampled.push(token);
            if !right {
                break;
            }
        }
        sampled
    }
}

/// What the device draws for all of them in one call.
pub(super) fn on_the_device(gpu: &Arc<Gpu>, cases: &[Case]) -> Vec<Vec<Sampled>> {
    let penalties = Penalties::new(gpu, cases[0].rows[0].len(), cases.len()).unwrap();
    mark_prompts(gpu, cases, &penalties);
    draw(gpu, cases, &penalties, 0)
}

pub(super) fn mark_prompts(gpu: &Arc<Gpu>, cases: &[Case], penalties: &Penalties) {
    let kernels = SampleKernels::new(gpu, cases[0].rows[0].len()).unwrap();
    for (index, case) in cases.iter().enumerate() {
        let prompt: Vec<i32> = case.prompt.iter().map(|&id| id as i32).collect();
        if case.sampling.repetition_penalty != 1.0 {
            kernels.mark_prompt(penalties, index, &Buffer::of(gpu, &prompt).unwrap()).unwrap();
        }
    }
}

/// The same for sequences of which so many tokens each were drawn, that `penalties` has counted.
pub(super) fn draw(gpu: &Arc<Gpu>, cases: &[Case], penalties: &Penalties, before: usize) -> Vec<Vec<Sampled>> {
    let vocabulary = cases[0].rows[0].len();
    let kernels = SampleKernels::new(gpu, vocabulary).unwrap();
    let stride = SampleKernels::stride(vocabulary);
    let rows: usize = cases.iter().map(|case| case.rows.len()).sum();
    let (mut ints, mut floats) = (Vec::new(), Vec::new());
    let (mut shares, mut guesses, mut logits) = (Vec::new(), Vec::new(), Vec::new());
    for (index, case) in cases.iter().enumerate() {
        let s = &case.sampling;
        let logprobs = case.logprobs.map_or(-1, i32::from);
        let first = guesses.len() as i32;
        ints.extend([first, case.rows.len() as i32, s.top_k as i32, logprobs, index as i32, 0, 0, 0]);
        floats.extend([s.temperature, s.top_p, s.min_p, s.repetition_penalty, s.presence_penalty, s.frequency_penalty]);
        floats.extend([0.0, 0.0]);
        let mut rng = ChaCha8Rng::seed_from_u64(s.seed);
        for _ in 0..before {
            let _: f64 = rng.random();
        }
        for (row, numbers) in case.rows.iter().enumerate() {
            let bits = rng.random::<f64>().to_bits();
            shares.extend([bits as u32, (bits >> 32) as u32]);
            guesses.push(case.guesses.get(row).map_or(-1, |&guess| guess as i32));
            logits.extend_from_slice(numbers);
            logits.resize(guesses.len() * stride, f32::NAN);
        }
    }
    assert_eq!((ints.len(), floats.len()), (cases.len() * SEQUENCE_INTS, cases.len() * SEQUENCE_FLOATS));
    let (ints, floats) = (Buffer::of(gpu, &ints).unwrap(), Buffer::of(gpu, &floats).unwrap());
    let (shares, guesses) = (Buffer::of(gpu, &shares).unwrap(), Buffer::of(gpu, &guesses).unwrap());
    let wishes = Wishes { ints: ints.at(0), floats: floats.at(0), shares: shares.at(0), guesses: guesses.at(0) };
    let (drawn, logits) = (Drawn::new(gpu, rows).unwrap(), Buffer::of(gpu, &logits).unwrap());
    kernels.sample(&drawn, &logits, wishes, penalties, cases.len()).unwrap();
    let numbers = drawn.numbers.read().unwrap();
    let mut first = 0;
    let read = |case: &Case| {
        let places = (first..first + case.rows.len()).map(|row| drawn.places(row));
        first += case.rows.len();
        let useful = places.take_while(|[token, ..]| numbers[*token] >= 0);
        useful.map(|places| Drawn::sampled(&numbers, places, case.logprobs)).collect()
    };
    cases.iter().map(read).collect()
}

/// Logits of which some are equal, some impossible, and one is no number.
fn logits(seed: u64) -> Vec<f32> {
    let mut row: Vec<f32> = noise(VOCABULARY, seed).into_iter().map(|number| (number * 40.0).round() / 5.0).collect();
    (row[3], row[700], row[999]) = (f32::NEG_INFINITY, f32::NAN, row[1]);
    row
}

fn samplings() -> Vec<Sampling> {
    let base = Sampling { temperature: 1.0, ..Sampling::default() };
    let greedy = Sampling { temperature: 0.0, ..base.clone() };
    let penalties = Sampling { repetition_penalty: 1.3, presence_penalty: 0.5, frequency_penalty: 0.2, ..base.clone() };
    vec![
        greedy.clone(),
        base.clone(),
        Sampling { temperature: 0.3, ..base.clone() },
        Sampling { top_k: 7, ..base.clone() },
        Sampling { top_p: 0.8, ..base.clone() },
        Sampling { min_p: 0.1, ..base.clone() },
        Sampling { top_k: 40, top_p: 0.9, min_p: 0.02, temperature: 1.4, ..base },
        Sampling { temperature: 0.0, ..penalties.clone() },
        Sampling { top_p: 0.7, ..penalties },
        Sampling { repetition_penalty: 0.7, ..greedy },
    ]
}

#[track_caller]
pub(super) fn check(cases: &[Case]) {
    for (case, found) in cases.iter().zip(on_the_device(&gpu(), cases)) {
        assert_same(&found, &case.on_the_cpu(), &format!("{:?}", case.sampling));
    }
}

/// The same tokens, and logprobs that differ by rounding.
#[track_caller]
pub(super) fn assert_same(found: &[Sampled], expected: &[Sampled], what: &str) {
    let ids = |sampled: &[Sampled]| sampled.iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(ids(found), ids(expected), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let (Some(found), Some(expected)) = (&found.logprob, &expected.logprob) else {
            assert_eq!(found.logprob, expected.logprob);
            continue;
        };
        let close = |a: f32, b: f32| a == b || (a - b).abs() < 1e-4 + 1e-6 * b.abs();
        assert!(close(found.logprob, expected.logprob), "{what}: {found:?} {expected:?}");
        assert_eq!(found.top.len(), expected.top.len(), "{what}");
        for (found, expected) in found.top.iter().zip(&expected.top) {
            assert!(found.0 == expected.0 && close(found.1, expected.1), "{what}: {found:?} {expected:?}");
        }
    }
}

#[test]
fn tokens_and_logprobs_are_those_of_the_cpu() {
    for seed in 0..6 {
        let case = |(index, sampling): (usize, Sampling)| Case {
            sampling: Sampling { seed: seed + index as u64, ..sampling },
            logprobs: [None, Some(0), Some(5), Some(20)][index % 4],
            prompt: vec![1, 5, 9, 999],
            rows: vec![logits(10 * seed + index as u64)],
            guesses: Vec::new(),
        };
        check(&samplings().into_iter().enumerate().map(case).collect::<Vec<_>>());
    }
}

#[test]
fn guesses_are_followed_as_far_as_they_are_right() {
    for seed in 0..4 {
        let rows: Vec<Vec<f32>> = (0..4).map(|row| logits(100 + 10 * seed + row)).collect();
        let cases = samplings().into_iter().map(|sampling| {
            let sampling = Sampling { seed, ..sampling };
            let mut case = Case { sampling, logprobs: None, prompt: vec![2, 4], rows: rows.clone(), guesses: vec![] };
            // All right but the third.
            for _ in 0..3 {
                let last = case.on_the_cpu().pop().unwrap().id;
                case.guesses.push(last);
            }
            case.guesses[2] = (case.guesses[2] + 1) % VOCABULARY as u32;
            case
        });
        let cases: Vec<Case> = cases.collect();
        assert!(cases.iter().all(|case| case.on_the_cpu().len() == 3));
        check(&cases);
    }
}

#[test]
fn a_row_without_a_finite_best_gives_no_token_and_harms_no_other() {
    let broken = [vec![f32::NAN; VOCABULARY], vec![f32::NEG_INFINITY; VOCABULARY], {
        let mut row = logits(1);
        row[40] = f32::INFINITY;
        row
    }];
    let case = |row| Case {
        sampling: samplings().remove(1),
        logprobs: Some(3),
        prompt: vec![],
        rows: vec![row],
        guesses: vec![],
    };
    let cases: Vec<Case> = broken.into_iter().chain([logits(2)]).map(case).collect();
    let drawn = on_the_device(&gpu(), &cases);
    assert!(drawn[..3].iter().all(Vec::is_empty) && drawn[3].len() == 1);
    check(&cases);
}
