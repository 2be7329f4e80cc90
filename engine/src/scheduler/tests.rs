//! Small plans by table.

use super::*;
use crate::kv::KeyChain;

fn scheduler(max_batch: usize, max_step_tokens: usize, blocks: usize) -> Scheduler {
    with_policy(Policy::Fcfs, max_batch, max_step_tokens, blocks)
}

fn with_policy(policy: Policy, max_batch: usize, max_step_tokens: usize, blocks: usize) -> Scheduler {
    Scheduler::new(Limits { max_batch, max_step_tokens }, policy, BlockPool::new(blocks, 4))
}

fn submit(scheduler: &mut Scheduler, id: u64, tokens: usize) {
    scheduler.submit(SequenceId(id), tokens, scheduler.max_positions(), Vec::new());
}

fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize, bool)> {
    let plan = launch(scheduler);
    land(scheduler, &plan);
    parts(&plan)
}

/// Plans a step that is not to land yet.
fn launch(scheduler: &mut Scheduler) -> Plan {
    scheduler.plan(|_, _| 0)
}

fn land(scheduler: &mut Scheduler, plan: &Plan) {
    plan.chunks.iter().for_each(|chunk| scheduler.landed(*chunk, usize::from(chunk.samples), Vec::new()));
}

fn parts(plan: &Plan) -> Vec<(u64, usize, usize, bool)> {
    plan.chunks.iter().map(|chunk| (chunk.id.0, chunk.start, chunk.tokens, chunk.samples)).collect()
}

#[test]
fn a_long_prompt_is_computed_in_chunks_while_others_decode() {
    let mut scheduler = scheduler(8, 6, 100);
    submit(&mut scheduler, 1, 3);
    assert_eq!(step(&mut scheduler), [(1, 0, 3, true)]);
    submit(&mut scheduler, 2, 12);
    assert_eq!(step(&mut scheduler), [(1, 3, 1, true), (2, 0, 5, false)]);
    assert_eq!(step(&mut scheduler), [(1, 4, 1, true), (2, 5, 5, false)]);
    assert_eq!(step(&mut scheduler), [(1, 5, 1, true), (2, 10, 2, true)]);
    assert_eq!(step(&mut scheduler), [(1, 6, 1, true), (2, 12, 1, true)]);
}

#[test]
fn the_batch_bound_holds_and_places_are_given_in_order_of_arrival() {
    let mut scheduler = scheduler(2, 100, 100);
    (1..=3).for_each(|id| submit(&mut scheduler, id, 2));
    assert_eq!(step(&mut scheduler), [(1, 0, 2, true), (2, 0, 2, true)]);
    assert_eq!((scheduler.running(), scheduler.waiting()), (2, 1));
    scheduler.remove(SequenceId(1));
    assert_eq!(step(&mut scheduler), [(2, 2, 1, true), (3, 0, 2, true)]);
}

#[test]
fn without_blocks_the_youngest_is_recomputed_later() {
    let mut scheduler = scheduler(4, 100, 3);
    submit(&mut scheduler, 1, 4);
    submit(&mut scheduler, 2, 3);
    assert_eq!(step(&mut scheduler), [(1, 0, 4, true), (2, 0, 3, true)]);
    assert_eq!(step(&mut scheduler), [(1, 4, 1, true), (2, 3, 1, true)]);
    for position in 5..8 {
        assert_eq!(step(&mut scheduler), [(1, position, 1, true)], "2 has no block to go on with");
    }
    let plan = scheduler.plan(|_, _| 0);
    assert_eq!(plan.preempted, [SequenceId(2)]);
    assert_eq!(plan.chunks, [Chunk { id: SequenceId(1), start: 8, tokens: 1, guessed: 0, samples: true }]);
    scheduler.landed(plan.chunks[0], 1, Vec::new());
    assert_eq!(step(&mut scheduler), [(1, 9, 1, true)], "2 needs two blocks");
    scheduler.remove(SequenceId(1));
    assert_eq!(step(&mut scheduler), [(2, 0, 5, true)], "the sampled tokens are recomputed too");
}

#[test]
fn a_newcomer_leaves_a_block_to_everyone_who_runs() {
    let mut scheduler = scheduler(4, 100, 4);
    submit(&mut scheduler, 1, 5);
    submit(&mut scheduler, 2, 5);
    assert_eq!(step(&mut scheduler), [(1, 0, 5, true)]);
    submit(&mut scheduler, 3, 1);
    assert_eq!(step(&mut scheduler), [(1, 5, 1, true)], "3 would fit, but is not admitted past 2");
    scheduler.remove(SequenceId(2));
    assert_eq!(step(&mut scheduler), [(1, 6, 1, true), (3, 0, 1, true)]);
}

#[test]
fn a_paused_sequence_holds_no_place_and_gives_up_its_blocks_first() {
    let mut scheduler = scheduler(1, 100, 2);
    submit(&mut scheduler, 1, 4);
    assert_eq!(step(&mut scheduler), [(1, 0, 4, true)]);
    scheduler.set_paused(SequenceId(1), true);
    submit(&mut scheduler, 2, 6);
    assert_eq!(step(&mut scheduler), [(2, 0, 6, true)], "it took the paused one's block");
    scheduler.set_paused(SequenceId(1), false);
    assert_eq!(step(&mut scheduler), [(2, 6, 1, true)]);
    scheduler.remove(SequenceId(2));
    assert_eq!(step(&mut scheduler), [(1, 0, 5, true)]);
}

#[test]
fn a_removed_sequence_leaves_no_block_behind() {
    let mut scheduler = scheduler(4, 100, 10);
    submit(&mut scheduler, 1, 9);
    step(&mut scheduler);
    assert_eq!(scheduler.pool().free(), 7);
    assert_eq!(scheduler.blocks(SequenceId(1)).len(), 3);
    scheduler.remove(SequenceId(1));
    assert_eq!(scheduler.pool().free(), 10);
    assert!(step(&mut scheduler).is_empty());
}

#[test]
fn short_prompts_pass_a_long_one_if_the_policy_says_so() {
    for (policy, expected) in [
        (Policy::Fcfs, vec![vec![(1, 0, 8, false)], vec![(1, 8, 8, false)], vec![(1, 16, 4, true), (2, 0, 4, false)]]),
        (
            Policy::ShortestPrompt,
            vec![
                vec![(1, 0, 8, false)],
                vec![(3, 0, 3, true), (2, 0, 5, true)],
                vec![(2, 5, 1, true), (3, 3, 1, true), (1, 8, 6, false)],
            ],
        ),
    ] {
        let mut scheduler = with_policy(policy, 8, 8, 100);
        submit(&mut scheduler, 1, 20);
        let mut steps = vec![step(&mut scheduler)];
        submit(&mut scheduler, 2, 5);
        submit(&mut scheduler, 3, 3);
        steps.extend((0..2).map(|_| step(&mut scheduler)));
        assert_eq!(steps, expected, "{policy:?}");
    }
}

#[test]
fn nobody_is_passed_over_for_ever() {
    let mut scheduler = with_policy(Policy::ShortestPrompt, 8, 8, 100);
    submit(&mut scheduler, 0, 40);
    let mut first_token = None;
    for round in 1..200 {
        // As many short prompts as a step takes, again and again, each answered with one token.
        submit(&mut scheduler, round, 8);
        let done = step(&mut scheduler);
        done.iter().filter(|chunk| chunk.0 > 0 && chunk.3).for_each(|chunk| scheduler.remove(SequenceId(chunk.0)));
        if done.iter().any(|chunk| chunk.0 == 0 && chunk.3) {
            first_token = Some(round);
            break;
        }
    }
    assert_eq!(first_token, Some(u64::from(Policy::PATIENCE) + 5), "its five chunks come when its patience is over");
}

#[test]
fn a_prompt_begins_where_the_cache_ends_but_its_last_token_is_computed() {
    let mut scheduler = scheduler(4, 100, 10);
    let tokens: Vec<u32> = (0..12).collect();
    let keys = |salt: u64, known: usize| KeyChain::new(salt, 4).extend(&tokens[..known]);
    let mut ask = |id: u64, salt: u64, known: usize| {
        scheduler.submit(SequenceId(id), known, 40, keys(salt, known));
        let done = step(&mut scheduler);
        let free = scheduler.pool().free();
        scheduler.remove(SequenceId(id));
        (done[0].1, done[0].2, free)
    };
    assert_eq!(ask(1, 7, 10), (0, 10, 7), "nothing is there yet");
    assert_eq!(ask(2, 7, 10), (8, 2, 7), "two full blocks are");
    assert_eq!(ask(3, 7, 8), (4, 4, 8), "of a prompt that is all there, the last block is computed");
    assert_eq!(ask(4, 8, 10), (0, 10, 7), "another salt finds nothing");
    assert_eq!(ask(5, 7, 6), (4, 2, 8));
}

#[test]
fn what_is_shared_is_held_once_and_a_preempted_sequence_finds_its_own_again() {
    let mut scheduler = scheduler(4, 100, 7);
    let tokens: Vec<u32> = (0..12).collect();
    for id in [1, 2] {
        scheduler.submit(SequenceId(id), 11, 28, KeyChain::new(0, 4).extend(&tokens[..11]));
        step(&mut scheduler);
    }
    assert_eq!(scheduler.blocks(SequenceId(1))[..2], scheduler.blocks(SequenceId(2))[..2]);
    assert_eq!(scheduler.pool().used(), 4);
    scheduler.set_paused(SequenceId(2), true);
    submit(&mut scheduler, 3, 8);
    assert_eq!(step(&mut scheduler), [(1, 12, 1, true), (3, 0, 8, true)]);
    assert_eq!(scheduler.blocks(SequenceId(2)).len(), 0, "3 needed the block that only 2 held");
    scheduler.remove(SequenceId(3));
    scheduler.set_paused(SequenceId(2), false);
    assert_eq!(step(&mut scheduler), [(1, 13, 1, true), (2, 8, 4, true)]);
}

#[test]
fn guesses_get_what_nobody_else_wants() {
    let mut scheduler = scheduler(8, 6, 3);
    submit(&mut scheduler, 1, 3);
    submit(&mut scheduler, 2, 3);
    assert_eq!(step(&mut scheduler), [(1, 0, 3, true), (2, 0, 3, true)]);
    let mut guess = |known: [usize; 2], extra: [usize; 2]| {
        let plan = scheduler.plan(|_, _| 9);
        assert_eq!((plan.preempted.as_slice(), plan.tokens), ([].as_slice(), 2 + extra[0] + extra[1]));
        for ((chunk, known), extra) in plan.chunks.iter().zip(known).zip(extra) {
            assert_eq!((chunk.start, chunk.tokens, chunk.guessed), (known - 1, 1, extra));
        }
        plan.chunks
    };
    let chunks = guess([4, 4], [4, 0]);
    assert_eq!(chunks.len(), 2, "the first took what was left of the budget, and a block");
    let mut accept = |chunk: Chunk, sampled| scheduler.landed(chunk, sampled, Vec::new());
    accept(chunks[0], 3);
    accept(chunks[1], 1);
    assert_eq!(scheduler.blocks(SequenceId(1)).len(), 2, "2 of 4 guesses held");
    let plan = scheduler.plan(|_, _| 9);
    assert_eq!(plan.chunks[0], Chunk { id: SequenceId(1), start: 6, tokens: 1, guessed: 1, samples: true });
    assert!(plan.preempted.is_empty(), "no block is taken away for a guess");
}

#[test]
fn a_step_goes_on_from_what_those_under_way_will_give() {
    let mut scheduler = scheduler(4, 6, 100);
    scheduler.submit(SequenceId(1), 3, 6, Vec::new());
    submit(&mut scheduler, 2, 5);
    let first = launch(&mut scheduler);
    assert_eq!(parts(&first), [(1, 0, 3, true), (2, 0, 3, false)]);
    let second = launch(&mut scheduler);
    assert_eq!(parts(&second), [(1, 3, 1, true), (2, 3, 2, true)]);
    land(&mut scheduler, &first);
    let third = launch(&mut scheduler);
    assert_eq!(parts(&third), [(1, 4, 1, true), (2, 5, 1, true)]);
    assert_eq!(parts(&launch(&mut scheduler)), [(2, 6, 1, true)], "1 will have all its tokens");
}

#[test]
fn only_what_has_landed_is_found() {
    let mut scheduler = scheduler(4, 8, 10);
    let tokens: Vec<u32> = (0..12).collect();
    let mut ask = |id: u64| scheduler.submit(SequenceId(id), 9, 40, KeyChain::new(0, 4).extend(&tokens[..9]));
    (1..=3).for_each(&mut ask);
    let first = launch(&mut scheduler);
    assert_eq!(parts(&first), [(1, 0, 8, false)]);
    let second = launch(&mut scheduler);
    assert_eq!(parts(&second), [(1, 8, 1, true), (2, 0, 7, false)], "the first step may fail");
    land(&mut scheduler, &first);
    assert_eq!(parts(&launch(&mut scheduler)), [(1, 9, 1, true), (2, 7, 2, true), (3, 8, 1, true)]);
}

#[test]
fn who_lost_its_blocks_while_under_way_comes_back_when_its_token_is_known() {
    let mut scheduler = scheduler(4, 100, 2);
    submit(&mut scheduler, 1, 3);
    step(&mut scheduler);
    let under_way = launch(&mut scheduler);
    assert_eq!(parts(&under_way), [(1, 3, 1, true)]);
    scheduler.set_paused(SequenceId(1), true);
    submit(&mut scheduler, 2, 6);
    let next = launch(&mut scheduler);
    assert_eq!((parts(&next), next.preempted), (vec![(2, 0, 6, true)], vec![SequenceId(1)]));
    scheduler.set_paused(SequenceId(1), false);
    scheduler.remove(SequenceId(2));
    assert_eq!(scheduler.pool().free(), 2, "whatever is under way");
    assert!(launch(&mut scheduler).chunks.is_empty());
    land(&mut scheduler, &under_way);
    assert_eq!(parts(&launch(&mut scheduler)), [(1, 0, 5, true)]);
}

#[test]
fn a_plan_says_what_holds_up_those_who_wait() {
    let held = |scheduler: &mut Scheduler| {
        let plan = launch(scheduler);
        land(scheduler, &plan);
        plan.held.iter().map(|(id, hold)| (id.0, *hold)).collect::<Vec<_>>()
    };
    let mut places = scheduler(1, 100, 100);
    (1..=2).for_each(|id| submit(&mut places, id, 2));
    assert_eq!(held(&mut places), [(2, Hold::Batch)]);
    let mut blocks = scheduler(4, 100, 3);
    (1..=3).for_each(|id| submit(&mut blocks, id, 7));
    assert_eq!(held(&mut blocks), [(2, Hold::Kv), (3, Hold::Kv)]);
    let mut budget = scheduler(4, 8, 100);
    (1..=2).for_each(|id| submit(&mut budget, id, 12));
    assert_eq!(held(&mut budget), [(2, Hold::StepBudget)]);
    assert_eq!(held(&mut budget), [], "it has its first tokens");
    let mut order = with_policy(Policy::ShortestPrompt, 1, 8, 100);
    submit(&mut order, 1, 20);
    submit(&mut order, 2, 2);
    submit(&mut order, 3, 30);
    assert_eq!(held(&mut order), [(1, Hold::Fairness), (3, Hold::Batch)]);
}
