//! Everything that the inputs say, joined by trace id.

use std::collections::{BTreeSet, HashMap};

use anyhow::bail;

use super::traces::{ParsedSpan, Traces, hex128};
use crate::analysis::Evidence;
use crate::analysis::observation::{Clock, Observation};
use crate::record::Row;
use crate::server::ServerFacts;

/// What was read so far.
#[derive(Debug)]
pub(super) struct Gathering {
    service: String,
    limit: usize,
    /// Counts, facts, and in the end the requests.
    evidence: Evidence,
    /// Requests of rows, by trace.
    rows: HashMap<u128, Observation>,
    /// Requests of rows that name no trace.
    unnamed: Vec<Observation>,
    traces: Traces,
    runs: u32,
}

impl Gathering {
    pub(super) fn new(service: String, limit: usize) -> Self {
        Self {
            service,
            limit,
            evidence: Evidence::default(),
            rows: HashMap::new(),
            unnamed: Vec::new(),
            traces: Traces::default(),
            runs: 0,
        }
    }

    /// What a run's times count from; `started` in seconds since 1970, 0 if that is not known.
    pub(super) fn clock(&mut self, started: f64) -> (Clock, u64) {
        let nanos = started * 1e9;
        if nanos >= 1.0 && nanos < u64::MAX as f64 / 2.0 {
            return (Clock::Wall, nanos as u64);
        }
        self.runs += 1;
        (Clock::Run(self.runs), 0)
    }

    /// Takes a row in.
    pub(super) fn add_row(&mut self, row: &Row, clock: (Clock, u64), steady_us: u64) {
        let Some(observation) = self.evidence.observe(row, clock, steady_us) else { return };
        let trace_id = hex128(&row.trace_id);
        if let Some(other) = trace_id.and_then(|trace_id| self.rows.get_mut(&trace_id)) {
            // The same run's report and records: the one that says when it was.
            if clock.0 == Clock::Wall {
                *other = observation;
            }
            self.evidence.leave_out("requests that came twice");
        } else if self.rows.len() + self.unnamed.len() >= self.limit {
            self.evidence.leave_out("requests beyond --limit");
        } else if let Some(trace_id) = trace_id {
            self.rows.insert(trace_id, observation);
        } else {
            self.unnamed.push(observation);
        }
    }

    /// Takes in what a report says of its run; of several the last counts.
    pub(super) fn add_run(&mut self, facts: Option<ServerFacts>, requests: u64) {
        self.evidence.facts = facts.or(self.evidence.facts);
        self.evidence.drawn_from = self.evidence.drawn_from.saturating_add(requests);
    }

    /// Takes a span in.
    pub(super) fn add_span(&mut self, span: ParsedSpan<'_>) {
        if let Some(why) = self.traces.add(span, &self.service, self.limit) {
            self.evidence.leave_out(why);
        }
    }

    /// Counts something that cannot be used.
    pub(super) fn leave_out(&mut self, why: &'static str) {
        self.evidence.leave_out(why);
    }

    /// The first and the last nanosecond since 1970 that the rows tell of.
    pub(super) fn time_range(&self) -> Option<(u64, u64)> {
        let intervals = self.rows.values().filter_map(Observation::interval);
        intervals
            .filter(|(clock, ..)| *clock == Clock::Wall)
            .map(|(_, from, to)| (from, to))
            .reduce(|(first, last), (from, to)| (first.min(from), last.max(to)))
    }

    /// All requests; an error if there is none.
    pub(super) fn finish(mut self) -> anyhow::Result<Evidence> {
        let mut requests = self.unnamed;
        let services = std::mem::take(&mut self.traces.other_services);
        for (trace_id, of_trace) in self.traces.into_requests() {
            let mut made = Vec::new();
            for request in of_trace {
                match request {
                    Ok(request) => made.push(request),
                    Err(why) => self.evidence.leave_out(why),
                }
            }
            match (self.rows.get_mut(&trace_id), made.as_mut_slice()) {
                (Some(row), [request]) => join(row, std::mem::take(request)),
                // Which of them the row tells of is not known.
                (Some(_), _) => {}
                (None, _) => requests.append(&mut made),
            }
        }
        requests.extend(self.rows.into_values());
        if requests.iter().any(|request| request.client.is_some()) {
            let before = requests.len();
            requests.retain(|request| request.client.is_some());
            (requests.len()..before).for_each(|_| self.evidence.leave_out("requests of other clients"));
        }
        // The order of a map is not that of time, and differs from run to run.
        requests.sort_by_key(Observation::interval);
        if requests.is_empty() {
            bail!("{}", nothing(&self.evidence, &self.service, &services));
        }
        self.evidence.observations = requests;
        Ok(self.evidence)
    }
}

/// The server's side of spans goes to its end, that of an answer only to where it was rendered; the client's side
/// of spans is used where the row does not say when it was.
fn join(row: &mut Observation, spans: Observation) {
    row.server = spans.server.or(row.server.take());
    row.tokens = row.tokens.or(spans.tokens);
    if let (Some(of_row), Some(mut of_span)) = (&mut row.client, spans.client)
        && of_row.clock != Clock::Wall
    {
        of_span.ramp = of_row.ramp;
        *of_row = of_span;
    }
}

fn nothing(evidence: &Evidence, service: &str, others: &BTreeSet<String>) -> String {
    let mut message = format!("there are no requests to analyse to the service {service:?}");
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        message += &format!("; there are some to {} (--service)", others.join(", "));
    }
    for (why, count) in &evidence.left_out {
        message += &format!("; left out: {count} {why}");
    }
    message
}
