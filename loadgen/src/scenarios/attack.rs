//! The closed loop of users, run by goose: the only file that knows goose.
//!
//! Goose starts and stops the users; each of its transactions is one request through [`stream_once`]. None of
//! its requests, metrics, logs or listeners are used. Its stop switch is global to the process: one attack at
//! a time.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goose::client::GooseClientBuilder;
use goose::config::GooseConfiguration;
use goose::prelude::{GooseUser, Scenario, Transaction, TransactionFunction};
use goose::{GooseAttack, is_killswitch_triggered};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::sync::watch;

use super::Corpus;
use crate::cli::Plan;
use crate::client::{Due, GenerateRequest, Target, stream_once};
use crate::collect::Intake;
use crate::record::Epoch;

/// How long a user waits after a failed request: a server that refuses is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How often the stop switch is looked at.
const SWITCH_INTERVAL: Duration = Duration::from_millis(50);

/// Why an attack was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its time was up; requests in flight were followed to their end.
    TimeUp,
    /// Ctrl-C at this time since the epoch; requests in flight were cut.
    Interrupted {
        /// Microseconds since the epoch.
        at_us: u64,
    },
}

/// What all users share.
struct Shared {
    plan: Plan,
    corpus: Corpus,
    target: Target,
    epoch: Epoch,
    intake: Intake,
    stop: watch::Receiver<bool>,
}

/// What one user remembers between its requests.
#[derive(Clone)]
struct UserState {
    number: usize,
    rng: ChaCha8Rng,
    ready: Instant,
}

/// Runs `plan` against `target`; every request's record goes to `intake`.
pub async fn attack(
    plan: &Plan,
    corpus: Corpus,
    target: Target,
    epoch: Epoch,
    intake: Intake,
) -> anyhow::Result<Ending> {
    let (stopper, stop) = watch::channel(false);
    let shared = Arc::new(Shared { plan: plan.clone(), corpus, target, epoch, intake, stop });
    let transaction: TransactionFunction = Arc::new(move |user: &mut GooseUser| {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            one_request(&shared, user).await;
            Ok(())
        })
    });
    let scenario = Scenario::new("generate").register_transaction(Transaction::new(transaction));
    let running = GooseAttack::initialize_with_config(configuration(plan))?
        // Unused, but built for every user unless shared.
        .set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies())?
        .register_scenario(scenario)
        .execute();
    tokio::pin!(running);
    let mut interrupted = None;
    let mut switch = tokio::time::interval(SWITCH_INTERVAL);
    loop {
        tokio::select! {
            result = &mut running => {
                result?;
                break;
            }
            _ = switch.tick(), if interrupted.is_none() => {
                if is_killswitch_triggered() {
                    interrupted = Some(epoch.now());
                    eprintln!("interrupted: stopping users; Ctrl-C again quits without a report");
                    stopper.send_replace(true);
                }
            }
        }
    }
    Ok(interrupted.map_or(Ending::TimeUp, |at_us| Ending::Interrupted { at_us }))
}

/// Goose with its own statistics, listeners and output off.
fn configuration(plan: &Plan) -> GooseConfiguration {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(plan.host.clone());
    configuration.users = Some(plan.users as usize);
    configuration.increase_rate = Some(plan.spawn_rate.to_string());
    configuration.run_time = Some(format!("{}s", plan.run_time.as_secs()));
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_telnet = true;
    configuration.quiet = 2;
    configuration
}

async fn one_request(shared: &Shared, user: &mut GooseUser) {
    let mut state = match user.get_session_data::<UserState>() {
        Some(state) => state.clone(),
        None => first_state(shared, user.weighted_users_index),
    };
    let (prompt, text) = match shared.plan.prompt_words {
        Some(words) => {
            let (number, text) = shared.corpus.draw_words(&mut state.rng, words as usize);
            (number, Cow::Owned(text))
        }
        None => {
            let (number, text) = shared.corpus.draw(&mut state.rng);
            (number, Cow::Borrowed(text))
        }
    };
    let lengths = shared.plan.max_tokens;
    let body = GenerateRequest {
        prompt: &text,
        max_tokens: state.rng.random_range(lengths.from..=lengths.to),
        stream: true,
        temperature: shared.plan.temperature,
        ignore_eos: shared.plan.ignore_eos,
    };
    let due = Due { user: state.number, prompt, scheduled: state.ready };
    shared.intake.sent();
    let record = stream_once(&shared.target, shared.epoch, due, &body, stopped(shared)).await;
    let failed = !record.succeeded();
    shared.intake.finished(record).await;
    if failed {
        tokio::select! {
            () = tokio::time::sleep(PAUSE_AFTER_FAILURE) => {}
            () = stopped(shared) => {}
        }
    }
    state.ready = Instant::now();
    user.set_session_data(state);
}

fn first_state(shared: &Shared, number: usize) -> UserState {
    let mut rng = ChaCha8Rng::seed_from_u64(shared.plan.seed);
    // Each user draws from its own stream of the one seed.
    rng.set_stream(number as u64);
    let ready = Instant::now();
    shared.intake.user_started(shared.epoch.micros(ready));
    UserState { number, rng, ready }
}

/// Completes when the run is interrupted.
async fn stopped(shared: &Shared) {
    let mut stop = shared.stop.clone();
    if stop.wait_for(|stopped| *stopped).await.is_err() {
        // The attack is over without an interruption: never.
        std::future::pending().await
    }
}
