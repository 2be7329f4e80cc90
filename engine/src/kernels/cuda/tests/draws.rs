//! Draws from rows of every sort, and the same ones whatever else is drawn: against the CPU's sampler.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{MOST_TOKENS, Penalties},
    sample::{Case, assert_same, check, draw, mark_prompts, on_the_device},
    *,
};
use crate::{generation::Sampling, sampling::Sampler};

/// Sorts of rows that [`row`] makes.
const SORTS: usize = 9;

/// Those whose logits may differ without their weights doing so.
const HARDLY_APART: [usize; 3] = [3, 5, 6];

/// Logits: of all sizes, or many of them equal, or hardly apart, or impossible.
fn row(sort: usize, vocabulary: usize, seed: u64) -> Vec<f32> {
    let mut row = noise(vocabulary, seed);
    let of_each = |row: &mut [f32], to: &dyn Fn(f32) -> f32| row.iter_mut().for_each(|logit| *logit = to(*logit));
    match sort {
        0 => of_each(&mut row, &|logit| 10.0 * logit),
        1 => of_each(&mut row, &|logit| (8.0 * logit).round()),
        2 => of_each(&mut row, &|_| 1.5),
        3 => of_each(&mut row, &|logit| 20.0 + 1e-5 * logit),
        4 => of_each(&mut row, &|logit| 300.0 * logit),
        5 => of_each(&mut row, &|logit| 0.0_f32.copysign(logit)),
        6 => of_each(&mut row, &|logit| 5.0 + 1e-3 * logit),
        7 => row[vocabulary / 3] = 60.0,
        _ => row.iter_mut().enumerate().for_each(|(id, logit)| {
            *logit = [f32::NAN, f32::NEG_INFINITY, 4.0 * *logit][id % 3];
        }),
    }
    row
}

/// Wishes of every sort.
fn sampling(rng: &mut ChaCha8Rng, vocabulary: usize) -> Sampling {
    let mut of = |choices: &[f32]| choices[rng.random_range(0..choices.len())];
    Sampling {
        temperature: of(&[0.0, 1e-40, 0.05, 0.7, 1.0, 1.3, 2.0]),
        top_p: of(&[1.0, 1.0, 1.0, 1e-30, 0.13, 0.5, 0.871, 0.999]),
        min_p: of(&[0.0, 0.0, 0.0, 0.02, 0.37, 1.0]),
        top_k: of(&[0.0, 0.0, 0.0, 1.0, 17.0, 50.0, 300.0, vocabulary as f32, 2.0 * vocabulary as f32]) as u32,
        repetition_penalty: of(&[1.0, 1.0, 1.0, 0.6, 1.2]),
        presence_penalty: of(&[0.0, 0.0, 0.0, -1.3, 0.8]),
        frequency_penalty: of(&[0.0, 0.0, 0.0, -0.4, 0.3]),
        seed: of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) as u64,
    }
}

/// Sequences with wishes and rows of every sort, each with so many rows that all guesses but the last are right for.
fn cases(count: usize, vocabulary: usize, rows: usize, seed: u64) -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let case = |index: usize| {
        let row_of = |at: usize| row((index + at) % SORTS, vocabulary, seed + (index * rows + at) as u64);
        let mut sampling = sampling(&mut rng, vocabulary);
        // Where logits differ and weights do not, the nucleus is another one on the CPU, which has only weights left.
        if (index..index + rows).any(|sort| HARDLY_APART.contains(&(sort % SORTS))) {
            sampling.top_p = 1.0;
        }
        let mut case = Case {
            sampling,
            logprobs: [None, Some(0), Some(3), Some(20)][index % 4],
            prompt: (0..20).map(|_| rng.random_range(0..vocabulary as u32)).collect(),
            rows: (0..rows).map(row_of).collect(),
            guesses: Vec::new(),
        };
        for _ in 1..rows {
            case.guesses.push(case.on_the_cpu().pop().unwrap().id);
        }
        case
    };
    (0..count).map(case).collect()
}

#[test]
fn draws_from_rows_of_every_sort_are_the_cpus() {
    for (vocabulary, count) in [(1, 9), (130, 120), (1003, 90), (32_003, 36), (MOST_TOKENS, 18)] {
        check(&cases(count, vocabulary, 1, 3 * vocabulary as u64));
    }
}

#[test]
fn guesses_are_drawn_for_with_what_was_drawn_before_them_counted() {
    check(&cases(30, 1003, 6, 17));
    check(&cases(30, 1003, 2, 18));
}

#[test]
fn a_draw_does_not_depend_on_who_else_draws() {
    let gpu = gpu();
    let cases = cases(33, 1003, 2, 41);
    let together = on_the_device(&gpu, &cases);
    for (first, count) in [(0, 1), (32, 1), (5, 8), (14, 19)] {
        assert_eq!(on_the_device(&gpu, &cases[first..first + count]), together[first..first + count]);
    }
}

/// Counts last from step to step, also where they move to where there is room for more.
#[test]
fn penalties_count_what_was_drawn_in_the_steps_before() {
    let (gpu, vocabulary) = (gpu(), 130);
    let mut cases = cases(20, vocabulary, 1, 77);
    let penalized = |case: &mut Case| {
        // Few tokens, so that they come again.
        let Sampling { temperature, seed, .. } = case.sampling;
        case.sampling =
            Sampling { temperature, seed, repetition_penalty: 1.2, frequency_penalty: 0.3, ..Sampling::default() };
        case.sampling.presence_penalty = -0.2;
    };
    cases.iter_mut().for_each(penalized);
    let mut samplers: Vec<Sampler> =
        cases.iter().map(|case| Sampler::new(case.sampling.clone(), case.logprobs, &case.prompt)).collect();
    let mut penalties = Penalties::new(&gpu, vocabulary, 20).unwrap();
    mark_prompts(&gpu, &cases, &penalties);
    for step in 0..8 {
        for (index, case) in cases.iter_mut().enumerate() {
            case.rows = vec![row([0, 1, 4, 7][index % 4], vocabulary, index as u64)];
            case.rows[0].iter_mut().skip(4).for_each(|logit| *logit -= 3.0);
        }
        if step == 4 {
            penalties = penalties.doubled(&gpu).unwrap();
            assert_eq!(penalties.rows(), 40);
        }
        let found = draw(&gpu, &cases, &penalties, step);
        for ((case, sampler), found) in cases.iter().zip(&mut samplers).zip(found) {
            let expected = sampler.sample(&mut case.rows[0].clone()).unwrap();
            assert_same(&found, &[expected], &format!("step {step} of {:?}", case.sampling));
        }
    }
    // Who comes next begins anew.
    (0..20).for_each(|row| penalties.clear(row).unwrap());
    mark_prompts(&gpu, &cases, &penalties);
    let found = draw(&gpu, &cases, &penalties, 0);
    cases.iter().zip(found).for_each(|(case, found)| assert_same(&found, &case.on_the_cpu(), "anew"));
}
