//! One request as far as it is known: what the client saw of it, what the server did with it, or both.
//!
//! All times are nanoseconds. What comes in here is checked, so that everything after can subtract.

use std::array;

use crate::record::{Phase, Row, Timings};

/// The longest time a request may have taken; longer ones are taken for broken clocks.
const LONGEST: u64 = 7 * 24 * 3600 * NANOS_PER_SECOND;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a side's instants count from: instants of different clocks are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clock {
    /// From 1970.
    Wall,
    /// From the beginning of a run, which is told apart from others by its number.
    Run(u32),
}

/// A request as the client saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSide {
    /// What the instants count from.
    pub clock: Clock,
    /// When it was due.
    pub scheduled: u64,
    /// When it was sent.
    pub sent: u64,
    /// When the first text arrived.
    pub first: Option<u64>,
    /// When the last text arrived.
    pub last: Option<u64>,
    /// When it was over.
    pub end: u64,
    /// Sent before all users were started: it tells of growth, and of nothing else.
    pub ramp: bool,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl ClientSide {
    /// The side that `row` tells of, its times shifted by the run's `epoch` on `clock`; none if they run backwards.
    pub fn of_row(row: &Row, clock: Clock, epoch: u64) -> Option<Self> {
        let at = |micros: u64| micros.checked_mul(1000)?.checked_add(epoch);
        Self {
            clock,
            scheduled: at(row.scheduled_us)?,
            sent: at(row.sent_us)?,
            first: row.first_us.and_then(at),
            last: row.last_us.and_then(at),
            end: at(row.end_us)?,
            ramp: false,
            failure: row.error.map(|class| class.to_string()),
        }
        .checked()
    }

    /// Itself, if its instants follow each other and lie within a week.
    pub fn checked(self) -> Option<Self> {
        let marks = [Some(self.scheduled), Some(self.sent), self.first, self.last, Some(self.end)];
        let marks: Vec<u64> = marks.into_iter().flatten().collect();
        let follows = marks.is_sorted() && (self.first.is_some() == self.last.is_some());
        (follows && self.end - self.scheduled <= LONGEST).then_some(self)
    }
}

/// Time within the phases that went elsewhere than into the request's own tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributed {
    /// Paused because the client reads slowly.
    pub stalled: u64,
    /// Evicted, and computed again.
    pub preempted: u64,
    /// Spent on other requests' prompts.
    pub interference: u64,
}

/// A request as the server's ledger has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerSide {
    /// When its head was read, since 1970; known from spans only.
    pub start: Option<u64>,
    /// From there to its end.
    pub total: u64,
    /// The phases it reached, in order.
    pub phases: [Option<u64>; 6],
    /// Within prefill and decode.
    pub attributed: Attributed,
    /// How it ended, if not well.
    pub failure: Option<String>,
}

impl ServerSide {
    /// The side that the ledger in an answer tells of; none if a time in it is negative or absurd.
    pub fn of_timings(timings: &Timings) -> Option<Self> {
        let phase = |phase: Phase| {
            let millis = timings.phases.get(&format!("{}_ms", phase.name()));
            millis.map_or(Some(None), |millis| nanos(*millis).map(Some))
        };
        let mut phases = [None; 6];
        for (slot, name) in phases.iter_mut().zip(Phase::ALL) {
            *slot = phase(name)?;
        }
        let part = |millis: Option<f64>| nanos(millis.unwrap_or(0.0));
        Some(Self {
            start: None,
            total: nanos(timings.total_ms)?,
            phases,
            attributed: Attributed {
                stalled: part(timings.stall_ms)?,
                preempted: part(timings.preempted_ms)?,
                interference: part(timings.interference_ms)?,
            },
            failure: None,
        })
    }

    /// Itself, if no time in it is longer than a week.
    pub fn checked(self) -> Option<Self> {
        let sane = self.phases.iter().flatten().chain([&self.total]).all(|time| *time <= LONGEST);
        sane.then_some(self)
    }

    /// How long a phase took; nothing if it was not reached.
    pub fn phase(&self, phase: Phase) -> u64 {
        self.phases[phase as usize].unwrap_or(0)
    }

    /// The last phase it reached.
    pub fn last_phase(&self) -> Option<Phase> {
        Phase::ALL.into_iter().rev().find(|phase| self.phases[*phase as usize].is_some())
    }

    /// From its start to the first token; only if there was one.
    pub fn first_token(&self) -> Option<u64> {
        let prefilled = self.phases[Phase::Prefill as usize].is_some() && self.phases[Phase::Decode as usize].is_some();
        prefilled.then(|| Phase::ALL[..4].iter().map(|phase| self.phase(*phase)).sum())
    }

    /// The phases, cut so that together they do not exceed the total.
    pub fn clamped(&self) -> [u64; 6] {
        let mut left = self.total;
        array::from_fn(|index| {
            let part = self.phases[index].unwrap_or(0).min(left);
            left -= part;
            part
        })
    }
}

/// Token counts, where they are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: Option<u64>,
    /// Of these, found in the prefix cache.
    pub cached: Option<u64>,
    /// Of the answer.
    pub output: Option<u64>,
}

impl Tokens {
    /// Its own counts, or else those of `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.or(other.prompt),
            cached: self.cached.or(other.cached),
            output: self.output.or(other.output),
        }
    }
}

/// One request: at least one side of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// What the client saw.
    pub client: Option<ClientSide>,
    /// What the server did.
    pub server: Option<ServerSide>,
    /// How long prompt and answer were.
    pub tokens: Tokens,
}

impl Observation {
    /// Why it failed, as the client says, or else the server.
    pub fn failure(&self) -> Option<&str> {
        let client = self.client.as_ref().and_then(|client| client.failure.as_deref());
        client.or_else(|| self.server.as_ref()?.failure.as_deref())
    }

    /// Whether it was sent while users were still being started.
    pub fn in_ramp(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.ramp)
    }

    /// When it was under way, and by which clock.
    pub fn interval(&self) -> Option<(Clock, u64, u64)> {
        match (&self.client, &self.server) {
            (Some(client), _) => Some((client.clock, client.sent, client.end)),
            (None, Some(server)) => server.start.map(|start| (Clock::Wall, start, start.saturating_add(server.total))),
            (None, None) => None,
        }
    }

    /// Sending until the first text, or else the server's own time to its first token.
    pub fn ttft(&self) -> Option<u64> {
        match &self.client {
            Some(client) => Some(client.first? - client.sent),
            None => self.server.as_ref()?.first_token(),
        }
    }

    /// Time per output token after the first; only with more than one.
    pub fn tpot(&self) -> Option<u64> {
        let steps = self.tokens.output?.checked_sub(1).filter(|steps| *steps > 0)?;
        let time = match &self.client {
            Some(client) => client.last? - client.first?,
            None => self.server.as_ref().filter(|server| server.first_token().is_some())?.phase(Phase::Decode),
        };
        Some(time / steps)
    }
}

/// Nanoseconds of `millis`; none if it is negative, no number, or longer than a week.
pub fn nanos(millis: f64) -> Option<u64> {
    let nanos = (millis * 1e6).round();
    (0.0..=LONGEST as f64).contains(&nanos).then_some(nanos as u64)
}

/// Milliseconds of `nanos`.
pub fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
