//! Steps that overlap: what nobody may notice of it, and what happens to those who end while a step is under way.

use super::*;

/// Requests whose tokens are drawn, with penalties and without.
fn drawn(index: u32) -> GenerationRequest {
    let sampling = Sampling {
        temperature: 1.0,
        top_p: if index.is_multiple_of(3) { 0.8 } else { 1.0 },
        repetition_penalty: if index.is_multiple_of(2) { 1.02 } else { 1.0 },
        frequency_penalty: if index % 4 == 1 { 0.5 } else { 0.0 },
        seed: u64::from(index),
        ..Sampling::default()
    };
    let prompt = format!("~prompt {}", index % 5).repeat(1 + index as usize % 3);
    GenerationRequest { sampling, logprobs: Some(1), ..request(&prompt, 24) }
}

/// An answer's tokens, each with the bits of its logprob.
async fn bits(mut generation: Generation) -> Vec<(u32, u32)> {
    let mut bits = Vec::new();
    while let Some(Event::Token(token)) = generation.next().await {
        bits.push((token.id, token.logprob.unwrap().logprob.to_bits()));
    }
    bits
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seeds_draw_the_same_tokens() {
    let one_by_one = fixture(200, EngineConfig::default());
    let mut expected = Vec::new();
    for index in 0..30 {
        expected.push(bits(one_by_one.engine.submit(drawn(index)).unwrap()).await);
    }
    expected.iter().for_each(|bits| assert_eq!(bits.len(), 24));
    assert!(expected[0] != expected[15], "another seed, another answer");
    let tight = EngineConfig { max_batch: 8, max_step_tokens: Some(24), ..EngineConfig::default() };
    for (blocks, config) in [
        (800, EngineConfig::default()),
        (40, tight.clone()),
        (40, EngineConfig { prefix_cache: false, stream_buffer: 2, ..tight.clone() }),
        (800, EngineConfig { stream_buffer: 1, ..tight }),
    ] {
        let together = overlapping(2, blocks, config);
        let running: Vec<_> =
            (0..30).map(|index| tokio::spawn(bits(together.engine.submit(drawn(index)).unwrap()))).collect();
        for (task, expected) in running.into_iter().zip(&expected) {
            assert!(task.await.unwrap() == *expected);
        }
        assert_eq!(together.engine.stats().preemptions > 0, blocks < 100);
        until(&together.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
    }
}

#[tokio::test]
async fn a_step_is_launched_before_the_one_before_has_landed_and_then_no_other() {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let observer = Box::new(reports::Recorder(Arc::clone(&told)));
    let (engine, gate) = start(2, 100, EngineConfig::default(), observer);
    gate.set(true, 0);
    let generation = engine.submit(GenerationRequest { tag: 9, ..request("a", 3) }).unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while told.lock().unwrap().len() < 2 {
        assert!(Instant::now() < limit);
        tokio::task::yield_now().await;
    }
    assert_eq!(generation.stamps().first_token, None);
    gate.set(false, 0);
    collect(generation).await;
    engine.shutdown();
    let expected = ["begun 1 [9]", "begun 2 [9]", "computed 1", "begun 3 [9]", "computed 2", "computed 3"];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test]
async fn nothing_is_computed_after_an_answers_last_token() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 10, EngineConfig::default());
        let mut rows = 0;
        for (prompt, max_tokens, answer) in [("one", 1, 1), ("two", 2, 2), ("seven", 7, 7), ("all there is", 99, 28)] {
            let (text, finished, generation) =
                collect(fixture.engine.submit(request(prompt, max_tokens)).unwrap()).await;
            assert_eq!((finished.reason, text.len()), (FinishReason::Length, answer));
            assert_eq!(generation.stamps().steps as usize, answer);
            rows += prompt.len() + answer - 1;
            assert_eq!(fixture.gate.rows(), rows, "{depth} {prompt}");
        }
    }
}

#[tokio::test]
async fn what_a_step_gives_for_those_who_ended_meanwhile_is_dropped() {
    for depth in DEPTHS {
        let fixture = overlapping(depth, 100, EngineConfig::default());
        let (whole, _, _) = collect(fixture.engine.submit(request("beside", 30)).unwrap()).await;
        let stops = |end| GenerationRequest { stop: vec![whole[end - 3..end].to_owned()], ..request("beside", 30) };
        fixture.gate.set(true, 0);
        let beside = fixture.engine.submit(request("beside", 30)).unwrap();
        let stopped: Vec<_> = [6, 9].map(stops).map(|asked| fixture.engine.submit(asked).unwrap()).into();
        let last = fixture.engine.submit(request("the last.", 30)).unwrap();
        let mut left = fixture.engine.submit(request("left", 30)).unwrap();
        fixture.gate.set(true, 5);
        assert!(matches!(left.next().await, Some(Event::Token(_))));
        drop(left);
        fixture.gate.set(false, 0);
        for (generation, length) in stopped.into_iter().zip([3, 6]) {
            let (text, finished, generation) = collect(generation).await;
            assert_eq!((finished.reason, text.as_str()), (FinishReason::Stop, &whole[..length]));
            assert_eq!(generation.stamps().usage.completion_tokens as usize, length + 3);
            check_attribution(&generation.stamps());
        }
        let (text, finished, generation) = collect(last).await;
        assert_eq!((finished.reason, text.as_str()), (FinishReason::Stop, ""));
        assert_eq!(generation.stamps().usage.completion_tokens, 1);
        assert_eq!(collect(beside).await.0, whole);
        until(&fixture.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
    }
}

/// Takes the failure that must come, and nothing after it.
async fn failure(mut generation: Generation) -> String {
    loop {
        match generation.next().await {
            Some(Event::Token(_)) => {}
            Some(Event::Failed(failure)) => {
                assert!(generation.next().await.is_none());
                return failure.message;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_step_that_fails_when_it_lands_takes_none_along_that_were_only_in_the_next() {
    let fixture = overlapping(2, 100, EngineConfig { max_step_tokens: Some(7), ..EngineConfig::default() });
    fixture.gate.set(true, 0);
    let first = fixture.engine.submit(request("first", 1)).unwrap();
    until(&fixture.engine, |stats| stats.waiting == 0).await;
    let poisoned = fixture.engine.submit(request("poison!", 5)).unwrap();
    let next = fixture.engine.submit(request("next", 5)).unwrap();
    fixture.gate.set(false, 0);
    collect(first).await;
    assert_eq!(failure(poisoned).await, "poisoned");
    assert_eq!(collect(next).await.0.len(), 5);
    until(&fixture.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
    fixture.engine.shutdown();
    let steps = fixture.steps.lock().unwrap();
    let told: Vec<_> = steps.iter().map(|step| (step.sequences, step.prefill_tokens, step.decode_tokens)).collect();
    assert_eq!(told[..4], [(1, 5, 0), (1, 7, 0), (2, 4, 1), (1, 0, 1)]);
}

#[tokio::test]
async fn a_step_that_cannot_be_launched_fails_once_also_for_those_in_the_step_before() {
    let fixture = overlapping(2, 100, EngineConfig { max_step_tokens: Some(8), ..EngineConfig::default() });
    fixture.gate.set(true, 0);
    let answering = fixture.engine.submit(request("answer", 40)).unwrap();
    fixture.gate.set(true, 2);
    fixture.gate.wait_for_steps(2);
    let refused = fixture.engine.submit(request("no%", 5)).unwrap();
    fixture.gate.set(false, 0);
    assert_eq!(failure(refused).await, "cannot launch");
    assert_eq!(failure(answering).await, "cannot launch", "it was in that step");
    assert_eq!(collect(fixture.engine.submit(request("fine", 5)).unwrap()).await.0.len(), 5);
    until(&fixture.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
    fixture.engine.shutdown();
    let steps = fixture.steps.lock().unwrap();
    assert!(steps.iter().map(|step| step.start.number).eq(1..=steps.len() as u64), "told in order");
}

#[tokio::test]
async fn who_cannot_begin_fails_alone() {
    let fixture = overlapping(2, 100, EngineConfig::default());
    let alone = fixture.engine.submit(request("&", 5)).unwrap();
    assert_eq!(failure(alone).await, "cannot begin");
    fixture.gate.set(true, 0);
    let first = fixture.engine.submit(request("first", 1)).unwrap();
    until(&fixture.engine, |stats| stats.waiting == 0).await;
    let together = ["a", "b&", "c"].map(|prompt| fixture.engine.submit(request(prompt, 5)).unwrap());
    fixture.gate.set(false, 0);
    collect(first).await;
    let [a, b, c] = together;
    assert_eq!(failure(b).await, "cannot begin");
    for generation in [a, c] {
        assert_eq!(collect(generation).await.0.len(), 5);
    }
    until(&fixture.engine, |stats| stats.kv_blocks_used == 0 && stats.running == 0).await;
}

#[tokio::test]
async fn an_engine_that_stops_tells_everyone_and_of_every_step() {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let observer = Box::new(reports::Recorder(Arc::clone(&told)));
    let (engine, gate) = start(2, 100, EngineConfig::default(), observer);
    gate.set(true, 3);
    let generation = engine.submit(request("endless", 300)).unwrap();
    gate.wait_for_steps(3);
    let stopping = std::thread::spawn(move || engine.shutdown());
    gate.set(false, 0);
    stopping.join().unwrap();
    assert_eq!(failure(generation).await, "the engine has stopped");
    let told = told.lock().unwrap();
    let count = |what: &str| told.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("begun"), count("computed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_overlapping_steps_are_whole_and_in_order() {
    let config = EngineConfig { max_batch: 8, max_step_tokens: Some(24), ..EngineConfig::default() };
    let fixture = overlapping(2, 40, config);
    let asked = (1..=20).map(|tag| GenerationRequest { tag, ..request(&format!("prompt {tag}").repeat(2), 15) });
    let generations: Vec<_> = asked.map(|asked| fixture.engine.submit(asked).unwrap()).collect();
    let mut taken_part = Vec::new();
    for generation in generations {
        let stamps = collect(generation).await.2.stamps();
        check_attribution(&stamps);
        taken_part.push(stamps.steps as usize);
    }
    fixture.engine.shutdown();
    let steps = fixture.steps.lock().unwrap();
    assert!(steps.iter().map(|step| step.start.number).eq(1..=fixture.engine.stats().steps));
    let ends = |step: &StepReport| step.start.started + step.duration;
    assert!(
        steps.windows(2).all(|pair| pair[0].start.started < pair[1].start.started && ends(&pair[0]) < ends(&pair[1]))
    );
    assert!(steps.windows(3).all(|three| ends(&three[0]) <= three[2].start.started), "two at a time");
    assert!(steps.windows(2).any(|pair| pair[1].start.started < ends(&pair[0])));
    for step in steps.iter() {
        assert_eq!(step.plan + step.forward + step.sample + step.send, step.duration);
        assert!(step.computing() == step.device.unwrap() && step.computing() <= step.forward);
        assert_eq!(step.sequences, step.start.tags.len());
    }
    for (tag, expected) in (1..).zip(taken_part) {
        assert_eq!(steps.iter().filter(|step| step.start.tags.contains(&tag)).count(), expected);
    }
    // A prompt's tokens are computed once as such, and again only where they were lost.
    let answers: usize = steps.iter().map(|step| step.decode_tokens).sum();
    assert!(answers <= 20 * 14, "the first token of an answer comes from its prompt: {answers}");
}
