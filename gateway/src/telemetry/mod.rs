//! Traces and metrics of the gateway: one [`Telemetry`] handle, given to whoever needs it.
//!
//! [`Telemetry::begin`] makes a request's server span (so that its ids are known from the start);
//! [`Telemetry::finish`] turns the closed ledger into the other spans and the histograms, once.

use http::HeaderMap;

use crate::ledger::{Facts, Ledger, Outcome};

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {}

/// The open server span of one request.
#[derive(Debug)]
pub struct RequestTrace {}

/// A closed request, as telemetry sees it.
#[derive(Debug)]
pub struct ClosedRequest<'a> {
    /// Its times; `closed` is set.
    pub ledger: &'a Ledger,
    /// What is known of it.
    pub facts: &'a Facts,
    /// How it ended.
    pub outcome: Outcome,
}

/// The gauge `gateway.requests.active{state}` moves between these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActiveState {
    /// In `receive`, `tokenize` or `queue`.
    Waiting,
    /// In `prefill` or `decode`.
    Running,
}

impl Telemetry {
    /// Opens the server span of a request to `route` (a route pattern, never a client's path), continuing
    /// the trace named in `headers` if there is a valid one.
    pub fn begin(
        &self,
        method: &'static str,
        route: &'static str,
        headers: &HeaderMap,
        ledger: &Ledger,
    ) -> RequestTrace {
        let _ = (method, route, headers, ledger);
        todo!("telemetry")
    }

    /// Ends the request's spans and records its histograms and counters.
    pub fn finish(&self, trace: RequestTrace, request: ClosedRequest<'_>) {
        let _ = (trace, request);
        todo!("telemetry")
    }

    /// Records the gap between two tokens of one answer.
    pub fn inter_token(&self, gap: std::time::Duration) {
        let _ = gap;
        todo!("telemetry")
    }

    /// Everything as Prometheus text.
    pub fn render_prometheus(&self) -> String {
        todo!("telemetry")
    }
}

impl RequestTrace {
    /// 32 lowercase hex digits.
    pub fn trace_id(&self) -> String {
        todo!("telemetry")
    }

    /// The `traceresponse`/`traceparent` value that names the server span.
    pub fn traceparent(&self) -> String {
        todo!("telemetry")
    }
}
