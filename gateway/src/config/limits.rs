//! What one request may cost.

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
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_body_bytes: ByteSize(2 << 20), body_timeout: Seconds::new(30), request_timeout: Seconds::new(300) }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), Violation> {
        within("limits.max_body_bytes", self.max_body_bytes, ByteSize(1 << 10)..=ByteSize(1 << 30))?;
        let (shortest, longest) = (Seconds::from(std::time::Duration::from_millis(1)), Seconds::new(86_400));
        within("limits.body_timeout", self.body_timeout, shortest..=longest)?;
        within("limits.request_timeout", self.request_timeout, shortest..=longest)
    }
}
