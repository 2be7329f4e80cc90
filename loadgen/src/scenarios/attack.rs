//! The closed loop of users, run by goose: the only file that knows goose.
//!
//! Goose starts and stops the users; each of its transactions is one request through [`stream_once`]. None of
//! its requests, metrics, logs or listeners are used. Its stop switch is global to the process: one attack at
//! a time.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use goose::client::GooseClientBuilder;
use goose::config::GooseConfiguration;
use goose::prelude::{GooseUser, Scenario, Transaction, TransactionFunction};
use goose::{GooseAttack, is_killswitch_triggered};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::sync::watch;

use super::{Corpus, signals};
use crate::cli::Plan;
use crate::client::{Due, GenerateRequest, Target, stream_once};
use crate::collect::Intake;
use crate::record::{Epoch, ErrorClass};
use crate::words::tell;

/// How long a user waits after a failed request: a server that refuses is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How often the stop switch is looked at.
const SWITCH_INTERVAL: Duration = Duration::from_millis(50);

/// Why an attack was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its time was up; requests in flight were followed to their end, or to that of the grace.
    TimeUp,
    /// A signal at this time since the epoch; requests in flight were cut.
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
    users: AtomicU32,
    /// When all users were started.
    all_started: watch::Sender<Option<Instant>>,
    stop: watch::Receiver<Option<ErrorClass>>,
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
    let (stopper, stop) = watch::channel(None);
    let (all_started, mut started) = watch::channel(None);
    let users = AtomicU32::new(0);
    let shared = Arc::new(Shared { plan: plan.clone(), corpus, target, epoch, intake, users, all_started, stop });
    signals::listen().context("cannot listen for signals")?;
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
    let grace_over = async move {
        // The sender is gone only with the attack.
        let started = started.wait_for(Option::is_some).await.ok().and_then(|started| *started);
        let Some(started) = started else { return std::future::pending().await };
        tokio::time::sleep_until((started + plan.run_time + plan.grace).into()).await;
    };
    tokio::pin!(grace_over);
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
                    tell("interrupted: stopping users; once more quits without a report");
                    stopper.send_replace(Some(ErrorClass::Interrupted));
                }
            }
            () = &mut grace_over, if stopper.borrow().is_none() => {
                stopper.send_replace(Some(ErrorClass::Cut));
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
    if shared.stop.borrow().is_some() {
        // Goose has yet to tell this user to go; what it would send now would be cut at once.
        tokio::time::sleep(SWITCH_INTERVAL).await;
        return;
    }
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
            _ = stopped(shared) => {}
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
    if shared.users.fetch_add(1, Ordering::Relaxed) + 1 == shared.plan.users {
        shared.all_started.send_replace(Some(ready));
    }
    UserState { number, rng, ready }
}

/// Completes when requests in flight are to be cut, with the class to say so.
async fn stopped(shared: &Shared) -> ErrorClass {
    let mut stop = shared.stop.clone();
    match stop.wait_for(Option::is_some).await.ok().and_then(|class| *class) {
        Some(class) => class,
        // The attack is over without a cut: never.
        None => std::future::pending().await,
    }
}
