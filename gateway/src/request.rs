//! One open inference request: its ledger, what is known of it, and its trace, closed exactly once.
//!
//! Three parties write to it while it is open (the middleware that began it, the handler, the body that
//! answers it), all through clones of [`OpenRequest`]. Only a [`RequestGuard`] closes it, and there is one
//! guard per request: it travels from the middleware into the response body and from there to the
//! connection. Wherever it is dropped instead of completed, the client did not get its whole answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use engine::Stamps;
use http::HeaderMap;

use crate::{
    error::{Description, ErrorCode},
    ledger::{Facts, Ledger, Outcome},
    recent::EndedRequest,
    state::App,
    telemetry::{ClosedRequest, RequestTrace, StepTag},
};

/// A handle to an open request; clones share it. Writes after it was closed change nothing.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    app: App,
    started: Instant,
    trace_id: String,
    traceparent: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    facts: Facts,
    /// How the request will have ended if its answer reaches the client.
    verdict: Option<Outcome>,
    /// Gone once closed.
    trace: Option<RequestTrace>,
}

/// Closes its request: as decided if [`RequestGuard::complete`] is called, as cancelled if it is dropped.
#[derive(Debug)]
pub struct RequestGuard {
    request: OpenRequest,
    delivered: bool,
}

impl OpenRequest {
    /// Opens a request to `route`, now. The guard must live until the response is out.
    pub fn begin(app: &App, route: &'static str, headers: &HeaderMap, facts: Facts) -> (Self, RequestGuard) {
        let ledger = Ledger::start();
        let trace = app.telemetry().begin("POST", route, headers, &ledger);
        let request = Self {
            shared: Arc::new(Shared {
                app: app.clone(),
                started: ledger.started,
                trace_id: trace.trace_id(),
                traceparent: trace.traceparent(),
                state: Mutex::new(State { ledger, facts, verdict: None, trace: Some(trace) }),
            }),
        };
        (request.clone(), RequestGuard { request, delivered: false })
    }

    /// When the head was read.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// The trace's id, 32 hex digits.
    pub fn trace_id(&self) -> &str {
        &self.shared.trace_id
    }

    /// The server span, as `traceparent` names it.
    pub fn traceparent(&self) -> &str {
        &self.shared.traceparent
    }

    /// Its name for the engine, by which its steps are noted; none once it is closed.
    pub fn tag(&self) -> Option<StepTag> {
        self.lock().trace.as_ref().map(|trace| self.shared.app.telemetry().tag(trace))
    }

    /// One more token, `gap` after the one before.
    pub fn token(&self, gap: Duration) {
        self.shared.app.telemetry().inter_token(gap);
    }

    /// Keeps what was answered, where content is captured.
    pub fn capture(&self, text: &str) {
        if self.shared.app.telemetry().captures_content() {
            self.lock().facts.content.get_or_insert_default().answer.push_str(text);
        }
    }

    /// Notes what became known.
    pub fn note(&self, write: impl FnOnce(&mut Facts)) {
        write(&mut self.lock().facts);
    }

    /// The body is read and valid: `receive` ends.
    pub fn received(&self) {
        self.lock().ledger.received = Some(Instant::now());
    }

    /// The prompt is encoded: `tokenize` ends.
    pub fn tokenized(&self) {
        self.lock().ledger.tokenized = Some(Instant::now());
    }

    /// Takes over the engine's stamps as they are now.
    pub fn stamp(&self, stamps: Stamps) {
        self.lock().ledger.stamps = stamps;
    }

    /// The answer is whole: `decode` ended with the last token.
    pub fn answered(&self, outcome: Outcome) {
        let mut state = self.lock();
        state.ledger.decoded = state.ledger.stamps.last_token;
        state.verdict = Some(outcome);
    }

    /// The request is refused or broken off.
    pub fn failed(&self, code: ErrorCode, why: Option<Description>) {
        let limit = self.shared.app.config().limits.request_timeout;
        let mut state = self.lock();
        state.verdict = Some(code.outcome());
        state.facts.error_type = Some(code.as_str());
        state.facts.error = match code {
            ErrorCode::DeadlineExceeded => Some(format!("deadline: request_timeout is {limit}").into()),
            _ => why.map(|description| description.0),
        };
    }

    /// The ledger as it stands.
    pub fn ledger(&self) -> Ledger {
        self.lock().ledger.clone()
    }

    fn close(&self, delivered: bool) {
        let mut state = self.lock();
        let Some(trace) = state.trace.take() else { return };
        let outcome = match (delivered, state.verdict) {
            (true, Some(verdict)) => verdict,
            (true, None) => Outcome::Error,
            (false, _) if std::thread::panicking() => Outcome::Error,
            (false, _) => Outcome::Cancelled,
        };
        state.ledger.closed = Some(Instant::now());
        if let Some(content) = &mut state.facts.content {
            self.shared.app.telemetry().clean(content);
        }
        let closed = ClosedRequest { ledger: &state.ledger, facts: &state.facts, outcome };
        self.shared.app.telemetry().finish(trace, closed);
        if let Some(recent) = self.shared.app.recent() {
            let (ledger, facts) = (state.ledger.clone(), std::mem::take(&mut state.facts));
            recent.push(EndedRequest { trace_id: self.shared.trace_id.clone(), ledger, facts, outcome });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestGuard {
    /// The last byte is out.
    pub fn complete(mut self) {
        self.delivered = true;
    }

    /// The request it closes.
    pub fn request(&self) -> &OpenRequest {
        &self.request
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.request.close(self.delivered);
    }
}
