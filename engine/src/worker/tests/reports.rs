//! What an observer is told of the steps.

use super::*;

fn tagged(tag: u64, prompt: &str, max_tokens: u32) -> GenerationRequest {
    GenerationRequest { tag, ..request(prompt, max_tokens) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_told_with_its_requests_its_parts_and_its_work() {
    let fixture = fixture(100, EngineConfig::default());
    fixture.gate.set(true, 0);
    let first = fixture.engine.submit(tagged(5, "first", 3)).unwrap();
    until(&fixture.engine, |stats| stats.waiting == 0).await;
    let others = [tagged(0, "unnamed", 1), tagged(7, "third", 2)].map(|asked| fixture.engine.submit(asked).unwrap());
    fixture.gate.set(false, 0);
    for generation in [first].into_iter().chain(others) {
        collect(generation).await;
    }
    fixture.engine.shutdown();

    let steps = fixture.steps.lock().unwrap();
    let told: Vec<_> = steps
        .iter()
        .map(|step| (step.start.number, step.start.tags.clone(), step.start.new_tags.clone(), step.sequences))
        .collect();
    assert_eq!(told, [(1, vec![5], vec![5], 1), (2, vec![5, 7], vec![7], 3), (3, vec![5, 7], vec![], 2),]);
    let work: Vec<_> = steps.iter().map(|step| step.work).collect();
    assert_eq!(
        work,
        [SIZES.work(std::iter::once(0..5), 1), SIZES.work([5..6, 0..7, 0..5], 3), SIZES.work([6..7, 5..6], 2),]
    );
    let tokens: Vec<_> = steps.iter().map(|step| (step.prefill_tokens, step.decode_tokens)).collect();
    assert_eq!(tokens, [(5, 0), (12, 1), (0, 2)]);
    for step in steps.iter() {
        assert_eq!(step.plan + step.forward + step.sample + step.send, step.duration);
        assert!(step.forward > Duration::ZERO && step.kv_blocks_total == 100);
    }
    assert!(steps.windows(2).all(|pair| pair[0].start.started + pair[0].duration <= pair[1].start.started));
    // Blocks of four positions for prompts of 5, 7 and 5 tokens, and those of the answers that have come by then.
    assert_eq!(steps.iter().map(|step| step.kv_blocks_used).collect::<Vec<_>>(), [2, 6, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_new_once_also_if_it_is_preempted() {
    let config = EngineConfig { max_batch: 16, max_step_tokens: Some(24), ..EngineConfig::default() };
    let fixture = fixture(60, config);
    let asked = (1..=30).map(|tag| tagged(tag, &format!("prompt {tag}").repeat(2), 20));
    let generations: Vec<_> = asked.map(|asked| fixture.engine.submit(asked).unwrap()).collect();
    let mut taken_part = Vec::new();
    for generation in generations {
        taken_part.push(collect(generation).await.2.stamps().steps as usize);
    }
    fixture.engine.shutdown();
    assert!(fixture.engine.stats().preemptions > 0);

    let steps = fixture.steps.lock().unwrap();
    let mut new: Vec<u64> = steps.iter().flat_map(|step| step.start.new_tags.clone()).collect();
    new.sort_unstable();
    assert_eq!(new, (1..=30).collect::<Vec<_>>());
    for (tag, expected) in (1..).zip(taken_part) {
        assert_eq!(steps.iter().filter(|step| step.start.tags.contains(&tag)).count(), expected);
    }
}

#[tokio::test]
async fn guessed_tokens_are_work() {
    let config = EngineConfig { speculative_tokens: 3, ..EngineConfig::default() };
    let fixture = fixture(100, config);
    collect(fixture.engine.submit(request("to the end", 380)).unwrap()).await;
    fixture.engine.shutdown();
    let steps = fixture.steps.lock().unwrap();
    let guessing: Vec<_> = steps.iter().filter(|step| step.decode_tokens > 1).collect();
    assert!(!guessing.is_empty());
    for step in guessing {
        assert_eq!(step.work.operations, 2 * step.decode_tokens as u64 * (2000 + 200));
    }
}

#[tokio::test]
async fn a_step_that_fails_is_told_of_too() {
    let fixture = fixture(100, EngineConfig::default());
    let mut failed = fixture.engine.submit(tagged(3, "poison!", 5)).unwrap();
    assert!(matches!(failed.next().await, Some(Event::Failed(_))));
    fixture.engine.shutdown();
    let steps = fixture.steps.lock().unwrap();
    let [step] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((step.start.tags.as_slice(), step.sample), (&[3][..], Duration::ZERO));
    assert_eq!(step.plan + step.forward + step.send, step.duration);
}

/// Notes what is told, in order.
pub(super) struct Recorder(pub(super) Arc<Mutex<Vec<String>>>);

impl StepObserver for Recorder {
    fn begun(&mut self, step: &StepStart) {
        self.0.lock().unwrap().push(format!("begun {} {:?}", step.number, step.tags));
    }

    fn computed(&mut self, report: &StepReport) {
        self.0.lock().unwrap().push(format!("computed {}", report.start.number));
    }
}

/// Whoever gets a token may look at what was told before it was computed.
#[tokio::test]
async fn who_is_in_a_step_is_told_before_its_tokens_are_sent() {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let engine = start(1, 100, EngineConfig::default(), Box::new(Recorder(Arc::clone(&told)))).0;
    let mut generation = engine.submit(tagged(9, "a", 2)).unwrap();
    assert!(matches!(generation.next().await, Some(Event::Token(_))));
    assert_eq!(told.lock().unwrap()[0], "begun 1 [9]");
    collect(generation).await;
    engine.shutdown();
    assert_eq!(*told.lock().unwrap(), ["begun 1 [9]", "computed 1", "begun 2 [9]", "computed 2"]);
}
