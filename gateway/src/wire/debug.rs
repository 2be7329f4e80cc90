//! `/debug/requests`: ended requests and their ledgers.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::{generate::UsageBody, timings::Timings};
use crate::{recent::EndedRequest, telemetry::error_type};

/// The answer.
#[derive(Debug, Serialize)]
pub struct RequestList {
    /// The slowest first.
    pub requests: Vec<RequestBody>,
}

/// One request; what it never had is absent.
#[derive(Debug, Serialize)]
pub struct RequestBody {
    trace_id: String,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Seconds since 1970.
    started: f64,
    /// How it ended.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_depth: Option<usize>,
    usage: UsageBody,
    timings: Timings,
}

impl From<&EndedRequest> for RequestBody {
    fn from(request: &EndedRequest) -> Self {
        let EndedRequest { trace_id, ledger, facts, outcome } = request;
        Self {
            trace_id: trace_id.clone(),
            request_id: facts.request_id.clone(),
            id: facts.response_id.clone(),
            model: facts.model.clone(),
            started: ledger.started_wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            outcome: outcome.as_str(),
            error_type: error_type(*outcome, facts),
            status: facts.status,
            stream: facts.stream,
            queue_depth: facts.queue_depth,
            usage: ledger.stamps.usage.into(),
            timings: Timings::to(ledger, ledger.closed.unwrap_or(ledger.started)),
        }
    }
}
