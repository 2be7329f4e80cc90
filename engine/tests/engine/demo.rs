//! The demo model through the whole engine: template, tokens, batch, text; the same as `transformers` gives.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::PathBuf;

use engine::{
    ChatMessage, Engine, EngineConfig, Event, FinishReason, Finished, Generation, GenerationRequest, PromptTemplate,
    Quantization, Sampling, StepReport, load, loader::LoadOptions,
};
use serde::Deserialize;

/// Written by `models/demo/train.py golden`.
#[derive(Deserialize)]
struct Golden {
    question: String,
    rendered: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    text: String,
}

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}

fn goldens() -> Vec<Golden> {
    serde_json::from_slice(&std::fs::read(demo().join("golden.json")).unwrap()).unwrap()
}

fn start(quantize: Option<Quantization>, speculative_tokens: usize) -> Engine {
    let options = LoadOptions { quantize, ..LoadOptions::default() };
    let config = EngineConfig { kv_memory: Some(64 << 20), speculative_tokens, ..EngineConfig::default() };
    Engine::start(load(&demo(), options).unwrap(), config, Box::new(|_: &StepReport| ())).unwrap()
}

fn greedy(prompt: Vec<u32>) -> GenerationRequest {
    GenerationRequest {
        prompt,
        max_tokens: 400,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        ignore_eos: false,
        logprobs: None,
        cache_salt: 0,
        deadline: None,
        tag: 0,
    }
}

async fn answer(generation: Generation) -> (Vec<u32>, String) {
    let (ids, text, finished) = whole(generation).await;
    assert_eq!(finished.reason, FinishReason::Stop);
    (ids, text)
}

async fn whole(mut generation: Generation) -> (Vec<u32>, String, Finished) {
    let (mut ids, mut text) = (Vec::new(), String::new());
    while let Some(event) = generation.next().await {
        match event {
            Event::Token(token) => {
                ids.push(token.id);
                text += &token.text;
            }
            Event::Finished(finished) => return (ids, text + &finished.text, finished),
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
    panic!("the stream ended without an end");
}

#[tokio::test]
async fn the_demo_answers_as_transformers_says_alone_and_together() {
    let engine = start(None, 0);
    let goldens = goldens();
    assert!(goldens.len() >= 5);
    let mut running = Vec::new();
    for golden in &goldens {
        let message = ChatMessage { role: "user".to_owned(), content: golden.question.clone() };
        assert_eq!(engine.text().render_chat(&[message]).unwrap(), golden.rendered);
        let prompt = engine.text().encode_prompt(&golden.question, PromptTemplate::Chat).unwrap();
        assert_eq!(prompt, golden.prompt_ids, "{}", golden.question);
        let alone = answer(engine.submit(greedy(prompt.clone())).unwrap()).await;
        // The end-of-sequence token is in transformers' ids, but no part of an answer.
        let (_, expected) = golden.greedy_ids.split_last().unwrap();
        assert_eq!((alone.0.as_slice(), alone.1.as_str()), (expected, golden.text.as_str()));
        running.push((engine.submit(greedy(prompt)).unwrap(), alone));
    }
    for (generation, alone) in running {
        assert_eq!(answer(generation).await, alone);
    }
}

/// An answer that is guessed ends where it ends without: at its last token, a stop string or the bound.
#[tokio::test]
async fn guessing_ends_an_answer_where_it_ends() {
    let (plain, guessing) = (start(None, 0), start(None, 6));
    for golden in goldens() {
        // Asked a second time, it says again what it can find in its own text.
        let again = [golden.prompt_ids.as_slice(), &golden.greedy_ids, &golden.prompt_ids[1..]].concat();
        let whole_answer = greedy(again);
        let middle: String = golden.text.chars().skip(golden.text.chars().count() / 2).take(6).collect();
        let stopped = GenerationRequest { stop: vec![middle], ..whole_answer.clone() };
        for request in (5..9)
            .map(|max_tokens| GenerationRequest { max_tokens, ..whole_answer.clone() })
            .chain([whole_answer.clone(), stopped])
        {
            let (ids, text, finished) = whole(plain.submit(request.clone()).unwrap()).await;
            let guessed = whole(guessing.submit(request).unwrap()).await;
            assert_eq!((&guessed.0, &guessed.1), (&ids, &text));
            assert_eq!((guessed.2.reason, guessed.2.usage), (finished.reason, finished.usage));
        }
    }
    assert!(guessing.stats().speculative_accepted > 20, "{:?}", guessing.stats());
}

#[tokio::test]
async fn quantised_while_loading_it_still_knows_its_page() {
    for format in [Quantization::Q8_0, Quantization::Q4K] {
        let engine = start(Some(format), 0);
        let golden = &goldens()[0];
        let (_, text) = answer(engine.submit(greedy(golden.prompt_ids.clone())).unwrap()).await;
        assert_eq!(text, golden.text, "{format:?}");
    }
}
