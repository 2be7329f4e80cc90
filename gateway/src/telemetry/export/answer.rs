//! What a collector says to an export.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

/// The most bytes of an answer: it holds a sentence at most.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The most bytes of a collector's words that are logged.
const MAX_REASON_BYTES: usize = 200;

/// A batch was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::telemetry) struct Taken {
    /// How many spans of it were not, for good.
    pub(in crate::telemetry) rejected: u64,
    /// Why not.
    pub(in crate::telemetry) reason: String,
}

/// A batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::telemetry) struct Refusal {
    pub(in crate::telemetry) reason: String,
    pub(in crate::telemetry) retry: Retry,
}

/// Whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Retry {
    Never,
    Soon,
    After(Duration),
}

impl Refusal {
    /// One that may pass.
    pub(super) fn passing(reason: impl ToString) -> Self {
        Self::new(reason, Retry::Soon)
    }

    pub(in crate::telemetry) fn new(reason: impl ToString, retry: Retry) -> Self {
        Self { reason: cut(&reason.to_string()), retry }
    }

    /// The collector cannot be reached; the causes say more than the error.
    pub(super) fn unreachable(error: &dyn std::error::Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        Self::passing(reason)
    }

    /// An HTTP status that is no success, and what it says of when to come back.
    pub(super) fn of_status(status: http::StatusCode, wait: Option<Duration>) -> Self {
        let retry = match status.as_u16() {
            429 | 502 | 503 | 504 => wait.map_or(Retry::Soon, Retry::After),
            _ => Retry::Never,
        };
        Self::new(format!("the collector answers {status}"), retry)
    }
}

/// All of an answer's body.
pub(super) async fn read<B>(body: B) -> Result<Collected<Bytes>, Refusal>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| Refusal::unreachable(&*error))
}

/// What a success says. One that cannot be read is a success all the same.
pub(super) fn taken(answer: &[u8]) -> Taken {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    Taken { rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(), reason: cut(&partial.error_message) }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn answer(rejected_spans: i64) -> Vec<u8> {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: "é".repeat(200) };
        ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }

    #[test]
    fn a_success_says_what_was_rejected() {
        assert_eq!(taken(&answer(3)), Taken { rejected: 3, reason: "é".repeat(100) });
        assert_eq!(taken(&answer(-1)).rejected, 0);
        assert_eq!(taken(b""), Taken::default());
        assert_eq!(taken(b"<html>"), Taken::default());
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let wait = Some(Duration::from_secs(7));
        for (status, wait, retry) in [
            (503, None, Retry::Soon),
            (429, wait, Retry::After(Duration::from_secs(7))),
            (502, None, Retry::Soon),
            (504, None, Retry::Soon),
            (500, wait, Retry::Never),
            (400, None, Retry::Never),
            (404, None, Retry::Never),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(Refusal::of_status(status, wait).retry, retry, "{status}");
        }
    }
}
