//! Real models through the whole engine: found in the cache or computed, guessed or not, alone or among others,
//! preempted or not, on any number of threads, the same request gives the same tokens with the same bits.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::num::NonZeroUsize;

use engine::{
    DeviceChoice, Engine, EngineConfig, EngineStats, Event, Generation, GenerationRequest, Policy, Sampling,
    StepReport, Usage, load, loader::LoadOptions,
};

use crate::goldens::folder;

/// Positions per block: small, so that even short prompts have several.
const BLOCK: usize = 4;
/// On a GPU: the fewest that its kernels take.
const GPU_BLOCK: usize = 8;

/// An answer's tokens, each with the bits of its logprob.
pub(crate) type Bits = Vec<(u32, u32)>;

fn start(case: &str, blocks: usize, config: EngineConfig) -> Engine {
    start_on(DeviceChoice::Cpu, case, blocks, config)
}

/// An engine with room for as many blocks of [`BLOCK`] positions.
pub(crate) fn start_on(device: DeviceChoice, case: &str, blocks: usize, config: EngineConfig) -> Engine {
    let together = tempfile::tempdir().unwrap();
    for file in
        [folder(case).join("config.json"), folder(case).join("model.safetensors"), folder("tokenizer/tokenizer.json")]
    {
        std::fs::copy(&file, together.path().join(file.file_name().unwrap())).unwrap();
    }
    let model = load(together.path(), LoadOptions { device, ..LoadOptions::default() }).unwrap();
    // Keys and values of all layers; these models keep them in single or half precision.
    let sizes = &model.config;
    let bytes = if case == "plain_gqa" || case == "sliding_window" { 4 } else { 2 };
    let block = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * BLOCK * bytes;
    let block_size = if device == DeviceChoice::Cuda { GPU_BLOCK } else { BLOCK };
    let config = EngineConfig { block_size, kv_memory: Some(blocks * block), ..config };
    Engine::start(model, config, Box::new(|_: &StepReport| ())).unwrap()
}

/// Requests whose prompts share a beginning, or all, or nothing; greedy and drawn, with penalties and without.
fn requests() -> Vec<GenerationRequest> {
    let prompt =
        |shared: u32, own: u32, len: u32| (0..len).map(move |i| if i < shared { i % 50 + 20 } else { own + i % 7 });
    [(24, 70, 24), (12, 80, 24), (20, 90, 21), (24, 70, 24), (0, 100, 13), (24, 110, 40), (16, 120, 17)]
        .into_iter()
        .enumerate()
        .map(|(index, (shared, own, len))| GenerationRequest {
            prompt: prompt(shared, own, len).collect(),
            max_tokens: 16,
            sampling: Sampling {
                temperature: if index % 2 == 0 { 0.0 } else { 1.2 },
                repetition_penalty: if index % 3 == 0 { 1.1 } else { 1.0 },
                // Below 0, so that these answers repeat themselves.
                frequency_penalty: if index % 3 == 1 { -2.0 } else { 0.0 },
                seed: index as u64 % 3,
                ..Sampling::default()
            },
            stop: Vec::new(),
            ignore_eos: true,
            logprobs: Some(1),
            cache_salt: 0,
            deadline: None,
            tag: 0,
        })
        .collect()
}

async fn answer(generation: Generation) -> (Bits, Usage) {
    let (bits, usage, _) = counted(generation).await;
    (bits, usage)
}

/// An answer, and the steps it took.
async fn counted(mut generation: Generation) -> (Bits, Usage, u32) {
    let mut bits = Vec::new();
    while let Some(event) = generation.next().await {
        match event {
            Event::Token(token) => bits.push((token.id, token.logprob.unwrap().logprob.to_bits())),
            Event::Finished(finished) => return (bits, finished.usage, generation.stamps().steps),
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
    panic!("the stream ended without an end");
}

/// Every answer alone, each by an engine that has seen nothing else.
async fn cold(case: &str) -> Vec<Bits> {
    cold_on(DeviceChoice::Cpu, case).await
}

pub(crate) async fn cold_on(device: DeviceChoice, case: &str) -> Vec<Bits> {
    let mut answers = Vec::new();
    for request in requests() {
        let engine =
            start_on(device, case, 100, EngineConfig { threads: NonZeroUsize::new(1), ..EngineConfig::default() });
        let (bits, usage) = answer(engine.submit(request).unwrap()).await;
        assert_eq!((bits.len(), usage.cached_tokens), (16, 0));
        answers.push(bits);
    }
    answers
}

/// Every request one after the other, then all at once, then all at once again; gives the steps of the first.
pub(crate) async fn check(engine: &Engine, expected: &[Bits]) -> (EngineStats, u32) {
    let (mut cached, mut steps) = (0, 0);
    for (request, expected) in requests().into_iter().zip(expected) {
        let (bits, usage, alone) = counted(engine.submit(request).unwrap()).await;
        assert!(bits == *expected, "one after the other");
        cached += usage.cached_tokens;
        steps += alone;
    }
    for round in 0..2 {
        let running: Vec<_> = requests().into_iter().map(|request| engine.submit(request).unwrap()).collect();
        for (generation, expected) in running.into_iter().zip(expected) {
            let (bits, usage) = answer(generation).await;
            assert!(bits == *expected, "all at once, {round}");
            cached += usage.cached_tokens;
        }
    }
    let stats = engine.stats();
    assert_eq!(stats.prefix_cache_hits, u64::from(cached));
    (stats, steps)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_and_a_miss_give_the_same_bits() {
    let mut preemptions = 0;
    for case in ["plain_gqa", "sliding_window", "tied_bf16", "k_quant_f16"] {
        let expected = cold(case).await;
        for threads in [1, 2, 3] {
            let config = EngineConfig { threads: NonZeroUsize::new(threads), ..EngineConfig::default() };
            let (roomy, _) = check(&start(case, 200, config.clone()), &expected).await;
            assert!(roomy.prefix_cache_hits > 200, "{roomy:?}");
            // Room for hardly more than the longest: blocks are taken away all the time.
            let config = EngineConfig { max_step_tokens: Some(9), policy: Policy::ShortestPrompt, ..config };
            let (tight, _) = check(&start(case, 18, config.clone()), &expected).await;
            preemptions += tight.preemptions;
            let (off, _) = check(&start(case, 18, EngineConfig { prefix_cache: false, ..config }), &expected).await;
            assert_eq!((off.prefix_cache_hits, off.prefix_cache_lookups), (0, 0));
        }
    }
    assert!(preemptions > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_changes_how_many_steps_there_are_and_nothing_else() {
    for case in ["plain_gqa", "sliding_window", "tied_bf16", "k_quant_f16"] {
        let expected = cold(case).await;
        let (plain, plain_steps) = check(&start(case, 200, EngineConfig::default()), &expected).await;
        assert_eq!((plain.speculative_proposed, plain.speculative_accepted), (0, 0));
        for (speculative_tokens, blocks, prefix_cache) in
            [(1, 200, true), (4, 200, false), (4, 18, true), (9, 18, false)]
        {
            let config = EngineConfig { speculative_tokens, prefix_cache, ..EngineConfig::default() };
            let (stats, steps) = check(&start(case, blocks, config), &expected).await;
            assert!(stats.speculative_accepted > 0, "{case}: {stats:?}");
            assert!(stats.speculative_accepted <= stats.speculative_proposed, "{stats:?}");
            assert!(steps < plain_steps, "{steps} {plain_steps}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_turn_of_a_conversation_finds_the_one_before_and_strangers_find_nothing() {
    let engine = start("plain_gqa", 100, EngineConfig::default());
    let first = requests().remove(0);
    let (bits, _) = answer(engine.submit(first.clone()).unwrap()).await;
    let mut prompt = first.prompt.clone();
    prompt.extend(bits.iter().map(|(id, _)| *id));
    prompt.extend([30, 31, 32]);
    let next = GenerationRequest { prompt, ..first };
    let stranger = GenerationRequest { cache_salt: 1, ..next.clone() };
    let found = answer(engine.submit(next).unwrap()).await;
    let computed = answer(engine.submit(stranger).unwrap()).await;
    // 24 tokens and 16 are 10 blocks; the answer's last token was sampled, but nobody computed its block.
    assert_eq!((found.1.cached_tokens, computed.1.cached_tokens), (36, 0));
    assert!(found.0 == computed.0);
}
