//! The whole engine on a GPU: found in the cache or computed, guessed or not, alone or among others, preempted or not,
//! the same request gives the same tokens with the same bits; in single precision, the CPU's tokens.

use engine::{DeviceChoice, EngineConfig, Policy};

use crate::determinism::{Bits, check, cold_on, start_on};

const GPU: DeviceChoice = DeviceChoice::Cuda;

fn tokens(answers: &[Bits]) -> Vec<Vec<u32>> {
    answers.iter().map(|answer| answer.iter().map(|(token, _)| *token).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_beside_a_request_changes_nothing() {
    for case in ["sliding_window", "tied_bf16", "k_quant_f16"] {
        let expected = cold_on(GPU, case).await;
        let (roomy, _) = check(&start_on(GPU, case, 200, EngineConfig::default()), &expected).await;
        assert!(roomy.prefix_cache_hits > 200, "{roomy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_losing_its_blocks_and_short_steps() {
    let mut preemptions = 0;
    for case in ["plain_gqa", "tied_bf16"] {
        let expected = cold_on(GPU, case).await;
        let config =
            EngineConfig { max_step_tokens: Some(9), policy: Policy::ShortestPrompt, ..EngineConfig::default() };
        let (tight, _) = check(&start_on(GPU, case, 20, config), &expected).await;
        preemptions += tight.preemptions;
    }
    assert!(preemptions > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_guesses() {
    for case in ["plain_gqa", "tied_bf16"] {
        let expected = cold_on(GPU, case).await;
        let config = EngineConfig { speculative_tokens: 4, ..EngineConfig::default() };
        let (stats, _) = check(&start_on(GPU, case, 200, config), &expected).await;
        assert!(stats.speculative_accepted > 0, "{case}: {stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_single_precision_the_tokens_are_the_cpus() {
    for case in ["plain_gqa", "sliding_window"] {
        let (gpu, cpu) = (cold_on(GPU, case).await, cold_on(DeviceChoice::Cpu, case).await);
        assert_eq!(tokens(&gpu), tokens(&cpu), "{case}");
    }
}
