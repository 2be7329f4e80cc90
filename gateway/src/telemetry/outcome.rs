//! What went wrong with a request, as `error.type`.

use super::names;
use crate::ledger::{Facts, Outcome};

/// A closed set: the code the client was told, else one per outcome; `None` if nothing went wrong.
pub(crate) fn error_type(outcome: Outcome, facts: &Facts) -> Option<&'static str> {
    let unnamed = match outcome {
        Outcome::Stop | Outcome::Length => return None,
        // Whatever else went on, the client did not see it.
        Outcome::Cancelled => return Some(names::CLIENT_DISCONNECTED),
        Outcome::Deadline => "deadline_exceeded",
        Outcome::Invalid => "invalid_request",
        Outcome::Overloaded => "overloaded",
        Outcome::Error => "internal_error",
    };
    Some(facts.error_type.unwrap_or(unnamed))
}
