//! What one request may cost, and how many may come.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{ByteSize, Seconds, Violation, within};

/// The `[limits]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The largest body read.
    pub max_body_bytes: ByteSize,
    /// Time for a body to arrive.
    pub body_timeout: Seconds,
    /// Time from a request's head to its last token.
    pub request_timeout: Seconds,
    /// Requests per minute and API key, or in all where there are no keys; unlimited unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// How many of them may come at once; those of ten seconds unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: ByteSize(2 << 20),
            body_timeout: Seconds::new(30),
            request_timeout: Seconds::new(300),
            requests_per_minute: None,
            burst: None,
        }
    }
}

impl LimitsConfig {
    /// Requests that may come at once, where their rate is limited.
    pub fn burst(&self) -> Option<NonZeroU32> {
        let of_ten_seconds = NonZeroU32::new(self.requests_per_minute?.get() / 6).unwrap_or(NonZeroU32::MIN);
        Some(self.burst.unwrap_or(of_ten_seconds))
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        within("limits.max_body_bytes", self.max_body_bytes, ByteSize(1 << 10)..=ByteSize(1 << 30))?;
        let (shortest, longest) = (Seconds::from(std::time::Duration::from_millis(1)), Seconds::new(86_400));
        within("limits.body_timeout", self.body_timeout, shortest..=longest)?;
        within("limits.request_timeout", self.request_timeout, shortest..=longest)
    }
}
