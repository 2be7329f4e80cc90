//! `transformers`' greedy tokens and logprobs, and a row's bits whoever is beside it.

use engine::KvType;

use super::open;
use crate::goldens::{Prompt, check_with, folder, golden};

/// Where weights have 16 bits, so have the rows between kernels, and `transformers`' own numbers in bf16 are as far from
/// the exact ones as ours: both are compared with those.
fn check(case: &str, tolerance: f32) {
    check_with(case, tolerance, Prompt::exact, || open(&folder(case), 1, None, KvType::F16));
}

#[test]
fn single_precision_grouped_queries() {
    check("plain_gqa", 1e-3);
}

#[test]
fn a_window_shorter_than_the_prompt() {
    check("sliding_window", 1e-3);
}

#[test]
fn heads_wider_than_the_hidden_size_in_shards() {
    check("head_dim_sharded", 1e-3);
}

#[test]
fn tied_embeddings_in_bf16() {
    check("tied_bf16", 2.1e-2);
}

#[test]
fn the_vocabulary_and_rope_theta_of_v03_in_bf16() {
    check("vocab_v03", 2e-2);
}

#[test]
fn half_precision() {
    check("k_quant_f16", 1e-2);
}

/// Prompts cut into chunks of any size beside each other, and answers beside them: every row has the bits it has alone.
#[test]
fn a_ragged_batch_gives_each_row_what_it_gets_alone() {
    for case in ["plain_gqa", "sliding_window", "tied_bf16", "k_quant_f16"] {
        let prompts: Vec<_> = golden(case).prompts.into_iter().map(|prompt| (prompt.prompt, prompt.greedy)).collect();
        let alone: Vec<_> = prompts
            .iter()
            .map(|(prompt, answer)| {
                let mut bench = open(&folder(case), 1, None, KvType::F16);
                let mut rows = bench.step(&[(0, prompt)]);
                answer.iter().take(8).for_each(|token| rows.extend(bench.step(&[(0, &[*token])])));
                rows
            })
            .collect();
        let mut bench = open(&folder(case), prompts.len(), None, KvType::F16);
        bench.set_prompts(prompts.iter().map(|(prompt, _)| prompt.len()));
        let mut together = vec![Vec::new(); prompts.len()];
        for (step, chunk) in (0..200).zip([5, 1, 9, 3].into_iter().cycle()) {
            let mut parts: Vec<(usize, &[u32])> = Vec::new();
            for (index, (prompt, answer)) in prompts.iter().enumerate() {
                let done = bench.computed(index);
                if done < prompt.len() {
                    // Not everyone is in every step.
                    if (step + index) % 3 > 0 {
                        parts.push((index, &prompt[done..prompt.len().min(done + chunk)]));
                    }
                } else if done < prompt.len() + answer.len().min(8) {
                    parts.push((index, &answer[done - prompt.len()..][..1]));
                }
            }
            let mut rows = bench.step(&parts).into_iter();
            for (index, tokens) in parts {
                together[index].extend(rows.by_ref().take(tokens.len()));
            }
        }
        assert!(together == alone, "{case}");
    }
}
