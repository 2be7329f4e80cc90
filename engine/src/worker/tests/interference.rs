//! What readers learn of the time that did not go into their own tokens.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_under_way_is_counted_when_the_reader_leaves() {
    let fixture = fixture(100, EngineConfig { stream_buffer: 4, ..EngineConfig::default() });
    let slow = fixture.engine.submit(request("slow", 40)).unwrap();
    collect(fixture.engine.submit(request("quick", 100)).unwrap()).await;
    let first = slow.stamps().stall;
    assert!(first > Duration::ZERO);
    assert!(slow.stamps().stall > first, "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_others_are_interference_to_answers_and_to_prompts() {
    let fixture = fixture(100, EngineConfig { max_step_tokens: Some(16), ..EngineConfig::default() });
    fixture.gate.set(true, 1);
    let answer = fixture.engine.submit(request("first", 40)).unwrap();
    fixture.gate.wait_for_steps(1);
    let long = fixture.engine.submit(request(&"long".repeat(20), 4)).unwrap();
    let behind = fixture.engine.submit(request(&"behind".repeat(3), 4)).unwrap();
    fixture.gate.set(false, 0);
    for (generation, suffers) in [(answer, true), (long, false), (behind, true)] {
        let stamps = collect(generation).await.2.stamps();
        check_attribution(&stamps);
        assert!(!suffers || stamps.interference > Duration::ZERO, "{stamps:?}");
    }
}

/// Between two tokens of an answer there is one step, and no step is larger than its budget: that is what a
/// long prompt costs others, and what their ledgers name.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_fills_steps_and_no_answer_misses_one() {
    let config = EngineConfig { max_step_tokens: Some(512), prefix_cache: false, ..EngineConfig::default() };
    let fixture = fixture(1500, config);
    fixture.gate.set(true, 0);
    let answers: Vec<_> =
        (10..35).map(|index| fixture.engine.submit(request(&format!("answer {index}"), 40)).unwrap()).collect();
    fixture.gate.set(true, 2);
    fixture.gate.wait_for_steps(2);
    let long = fixture.engine.submit(request(&"long".repeat(1000), 4)).unwrap();
    fixture.gate.set(false, 0);
    let mut sampled = Vec::new();
    for mut answer in answers {
        let mut times = Vec::new();
        while let Some(Event::Token(token)) = answer.next().await {
            times.push(token.sampled_at);
        }
        sampled.push((times, answer.stamps()));
    }
    collect(long).await;
    fixture.engine.shutdown();

    let steps = fixture.steps.lock().unwrap();
    let tokens = |step: &StepReport| step.prefill_tokens + step.decode_tokens;
    let full: Vec<_> = steps.iter().filter(|step| tokens(step) == 512).map(|step| step.decode_tokens).collect();
    assert_eq!(full, [25; 8], "8 * (512 - 25) < 4000");
    assert!(steps.iter().all(|step| tokens(step) <= 512));
    for (times, stamps) in sampled {
        let (first, last) = (stamps.scheduled.unwrap(), stamps.last_token.unwrap());
        let during: Vec<_> =
            steps.iter().filter(|step| step.start.started >= first && step.start.started < last).collect();
        assert_eq!((during.len(), times.len()), (40, 40), "a token in every step");
        let mut own = "answer 10".len();
        let parts = during.iter().zip(&times).map(|(step, &at)| {
            let others = step.prefill_tokens - std::mem::take(&mut own);
            (at - step.start.started).as_nanos() * others as u128 / tokens(step) as u128
        });
        assert_eq!(stamps.interference.as_nanos(), parts.sum::<u128>());
        assert!(stamps.interference <= last - first);
    }
}
