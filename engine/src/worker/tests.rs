//! The running worker with a scripted model: what readers see, whatever they do.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod delayed;
mod interference;
mod overlap;
mod reports;
mod scripted;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use scripted::{fixture, overlapping, request, start};

use crate::{
    Engine, EngineConfig, Event, FinishReason, Finished, Generation, GenerationRequest, Sampling, Stamps, StepObserver,
    StepReport, StepStart, SubmitError, model::SIZES,
};

/// One step at a time, and two that overlap.
const DEPTHS: [usize; 2] = [1, 2];

async fn collect(mut generation: Generation) -> (String, Finished, Generation) {
    let mut text = String::new();
    while let Some(event) = generation.next().await {
        match event {
            Event::Token(token) => text += &token.text,
            Event::Finished(finished) => return (text + &finished.text, finished, generation),
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
    panic!("the stream ended without an end");
}

/// Waits, without sleeping on it, until the engine's gauges say so.
async fn until(engine: &Engine, condition: impl Fn(&crate::EngineStats) -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition(&engine.stats()) {
        assert!(Instant::now() < limit, "{:?}", engine.stats());
        tokio::task::yield_now().await;
    }
}

/// What was attributed fits into the time from the first step to the last token.
fn check_attribution(stamps: &Stamps) {
    let total = stamps.last_token.unwrap() - stamps.scheduled.unwrap();
    assert!(stamps.stall + stamps.preempted + stamps.interference <= total, "{stamps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn among_forty_nine_others_and_preempted_a_request_says_what_it_says_alone() {
    let prompts: Vec<String> = (0..50).map(|index| format!("prompt {index}").repeat(1 + index % 3)).collect();
    let mut alone = Vec::new();
    let roomy = fixture(800, EngineConfig::default());
    for prompt in &prompts {
        let (text, finished, generation) = collect(roomy.engine.submit(request(prompt, 20)).unwrap()).await;
        assert_eq!((finished.reason, text.len()), (FinishReason::Length, 20));
        let stamps = generation.stamps();
        assert!(stamps.queued <= stamps.scheduled && stamps.scheduled <= stamps.first_token);
        assert!(stamps.first_token < stamps.last_token);
        alone.push(text);
    }
    let tight = EngineConfig { max_batch: 16, max_step_tokens: Some(24), ..EngineConfig::default() };
    for (depth, blocks, config) in [
        (1, 800, EngineConfig::default()),
        (2, 800, EngineConfig::default()),
        (1, 60, tight.clone()),
        (2, 60, tight),
        (1, 800, EngineConfig { speculative_tokens: 3, ..EngineConfig::default() }),
        (2, 60, EngineConfig { speculative_tokens: 3, max_batch: 16, stream_buffer: 2, ..EngineConfig::default() }),
    ] {
        let readers_keep_up = config.stream_buffer > 20;
        let together = overlapping(depth, blocks, config);
        let running: Vec<_> = prompts
            .iter()
            .map(|prompt| tokio::spawn(collect(together.engine.submit(request(prompt, 20)).unwrap())))
            .collect();
        let (mut preempted, mut interference) = (Duration::ZERO, Duration::ZERO);
        for (task, alone) in running.into_iter().zip(&alone) {
            let (text, _, generation) = task.await.unwrap();
            assert_eq!(&text, alone);
            let stamps = generation.stamps();
            check_attribution(&stamps);
            preempted += stamps.preempted;
            interference += stamps.interference;
        }
        assert!(interference > Duration::ZERO);
        assert!(!readers_keep_up || (preempted > Duration::ZERO) == (blocks < 100));
        until(&together.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
        assert_eq!(together.engine.stats().preemptions > 0, blocks < 100);
    }
}

#[tokio::test]
async fn a_dropped_generation_frees_its_blocks_before_the_next_step() {
    let fixture = fixture(100, EngineConfig::default());
    fixture.gate.set(true, 3);
    let mut generation = fixture.engine.submit(request("abcdefgh", 1000)).unwrap();
    assert!(matches!(generation.next().await, Some(Event::Token(_))));
    fixture.gate.wait_for_steps(3);
    until(&fixture.engine, |stats| stats.kv_blocks_used > 0).await;
    drop(generation);
    fixture.gate.set(true, 1);
    until(&fixture.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
    assert!(fixture.engine.stats().steps <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_pauses_only_its_own_sequence() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 100, EngineConfig { stream_buffer: 4, ..EngineConfig::default() });
        let mut slow = fixture.engine.submit(request("slow", 40)).unwrap();
        let (text, _, _) = collect(fixture.engine.submit(request("quick", 100)).unwrap()).await;
        assert_eq!(text.len(), 100);
        assert_eq!(slow.stamps().usage.completion_tokens, 4, "no more than its buffer holds");
        assert!(slow.next().await.is_some());
        collect(fixture.engine.submit(request("again", 100)).unwrap()).await;
        assert_eq!(slow.stamps().usage.completion_tokens, 4, "it does not go on for one token");
        let (_, finished, generation) = collect(slow).await;
        assert_eq!(finished.usage.completion_tokens, 40);
        let stamps = generation.stamps();
        assert!(stamps.stall > Duration::ZERO);
        check_attribution(&stamps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_block_neither_places_nor_memory() {
    for depth in DEPTHS {
        let config = EngineConfig { stream_buffer: 2, max_batch: 2, ..EngineConfig::default() };
        let fixture = overlapping(depth, 8, config);
        let stalled: Vec<_> =
            (0..4).map(|index| fixture.engine.submit(request(&format!("stalled{index}"), 12)).unwrap()).collect();
        let (text, _, _) = collect(fixture.engine.submit(request("through all of them", 10)).unwrap()).await;
        assert_eq!(text.len(), 10);
        for generation in stalled {
            assert_eq!(collect(generation).await.0.len(), 12, "they go on where they were");
        }
    }
}

#[tokio::test]
async fn a_deadline_ends_a_request_in_the_queue_and_amid_its_answer() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 100, EngineConfig { max_batch: 1, ..EngineConfig::default() });
        fixture.gate.set(true, 2);
        let soon = Instant::now() + Duration::from_millis(50);
        let deadline = GenerationRequest { deadline: Some(soon), ..request("running", 1000) };
        let running = fixture.engine.submit(deadline.clone()).unwrap();
        let waiting = fixture.engine.submit(GenerationRequest { ..deadline }).unwrap();
        fixture.gate.wait_for_steps(2);
        while Instant::now() < soon {
            tokio::task::yield_now().await;
        }
        fixture.gate.set(false, 0);
        let (text, finished, _) = collect(running).await;
        assert_eq!(finished.reason, FinishReason::Deadline);
        assert!(!text.is_empty());
        let (text, finished, generation) = collect(waiting).await;
        assert_eq!((finished.reason, text.as_str()), (FinishReason::Deadline, ""));
        assert_eq!(generation.stamps().scheduled, None);
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_at_once() {
    let fixture = fixture(10, EngineConfig { max_queue: 2, ..EngineConfig::default() });
    fixture.gate.set(true, 0);
    let refused = |request| fixture.engine.submit(request).unwrap_err();
    assert_eq!(refused(request("", 1)), SubmitError::EmptyPrompt);
    let long = "x".repeat(40);
    assert_eq!(refused(request(&long, 1)), SubmitError::PromptTooLong { prompt_tokens: 40, limit: 40 });
    let first = fixture.engine.submit(request("in the step", 1)).unwrap();
    until(&fixture.engine, |stats| stats.waiting == 0).await;
    let _queued = [fixture.engine.submit(request("a", 1)).unwrap(), fixture.engine.submit(request("b", 1)).unwrap()];
    assert_eq!(refused(request("c", 1)), SubmitError::QueueFull { limit: 2 });
    fixture.gate.set(false, 0);
    collect(first).await;
    fixture.engine.shutdown();
    assert_eq!(refused(request("late", 1)), SubmitError::Stopped);
}

#[tokio::test]
async fn a_failed_step_ends_only_the_requests_in_it() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 100, EngineConfig::default());
        let mut failed = fixture.engine.submit(request("poison!", 5)).unwrap();
        assert!(matches!(failed.next().await, Some(Event::Failed(failure)) if failure.message == "poisoned"));
        assert!(failed.next().await.is_none());
        let (text, _, _) = collect(fixture.engine.submit(request("fine", 5)).unwrap()).await;
        assert_eq!(text.len(), 5);
        until(&fixture.engine, |stats| stats.kv_blocks_used == 0).await;
    }
}

#[tokio::test]
async fn a_request_whose_logits_are_no_numbers_fails_alone() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 100, EngineConfig::default());
        let mut failed = fixture.engine.submit(request("what?", 5)).unwrap();
        let beside = fixture.engine.submit(request("fine", 5)).unwrap();
        let message = "the model's logits are not finite";
        assert!(matches!(failed.next().await, Some(Event::Failed(failure)) if failure.message == message));
        assert!(failed.next().await.is_none());
        assert_eq!(collect(beside).await.0.len(), 5);
        until(&fixture.engine, |stats| stats.kv_blocks_used == 0).await;
    }
}

#[tokio::test]
async fn stop_strings_and_the_contexts_end_finish_an_answer() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 10, EngineConfig::default());
        let (whole, finished, _) = collect(fixture.engine.submit(request("to the end", 1000)).unwrap()).await;
        assert_eq!((finished.reason, whole.len()), (FinishReason::Length, 30), "40 positions hold 10 and 30");
        let stop = whole[5..8].to_owned();
        let stopped = GenerationRequest { stop: vec![stop], ..request("to the end", 1000) };
        let (text, finished, _) = collect(fixture.engine.submit(stopped).unwrap()).await;
        assert_eq!((finished.reason, text.as_str()), (FinishReason::Stop, &whole[..5]));
    }
}
