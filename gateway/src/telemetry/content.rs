//! Prompts and answers as span attributes; only where capture was asked for, and then redacted and cut.

use opentelemetry::KeyValue;
use regex::Regex;
use serde_json::json;

use super::names;
use crate::{
    config::TelemetryConfig,
    ledger::{Content, Outcome},
};

/// The most bytes of a prompt or an answer in a span, unless configured: a captured novel must not fill the
/// span queue.
const LIMIT: usize = 16 << 10;

/// What stands where a pattern matched.
const REDACTED: &str = "[redacted]";

/// What of a prompt or an answer may be seen.
#[derive(Debug)]
pub(super) struct Capture {
    redact: Vec<Regex>,
    limit: usize,
}

impl Capture {
    /// `None` where content is not to be captured.
    pub(super) fn new(config: &TelemetryConfig) -> Result<Option<Self>, regex::Error> {
        if !config.capture_content {
            return Ok(None);
        }
        let redact = config.redact.iter().map(|pattern| Regex::new(pattern)).collect::<Result<_, _>>()?;
        Ok(Some(Self { redact, limit: config.content_limit.map_or(LIMIT, |limit| limit.0) }))
    }

    /// Leaves of `content` what may be seen. Whole texts are redacted, so that a match is found however the
    /// text came in pieces and wherever it is cut.
    pub(super) fn clean(&self, content: &mut Content) {
        for text in [&mut content.prompt, &mut content.answer] {
            for pattern in &self.redact {
                if let std::borrow::Cow::Owned(redacted) = pattern.replace_all(text, REDACTED) {
                    *text = redacted;
                }
            }
            text.truncate(text.floor_char_boundary(self.limit));
        }
    }
}

/// The conventions' two attributes, each a JSON string. An answer says why it ended, as the schema of the second wants
/// it.
pub(super) fn attributes(content: &Content, finish_reason: &str) -> [KeyValue; 2] {
    let message = |role: &str, text: &str| json!({"role": role, "parts": [{"type": "text", "content": text}]});
    let mut answer = message("assistant", &content.answer);
    answer["finish_reason"] = finish_reason.into();
    [
        KeyValue::new(names::INPUT_MESSAGES, json!([message("user", &content.prompt)]).to_string()),
        KeyValue::new(names::OUTPUT_MESSAGES, json!([answer]).to_string()),
    ]
}

/// Why an answer ended, in the schema's words.
pub(super) fn finish_reason(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stop | Outcome::Length => outcome.as_str(),
        _ => "error",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn cleaned(config: TelemetryConfig, prompt: &str) -> String {
        let capture = Capture::new(&TelemetryConfig { capture_content: true, ..config }).unwrap().unwrap();
        let mut content = Content { prompt: prompt.to_owned(), answer: String::new() };
        capture.clean(&mut content);
        content.prompt
    }

    #[test]
    fn matches_are_replaced_before_the_text_is_cut() {
        let config = |limit: usize| TelemetryConfig {
            redact: vec![r"\b\d{4}-\d{4}\b".to_owned(), "(?i)secret".to_owned()],
            content_limit: Some(crate::config::ByteSize(limit)),
            ..TelemetryConfig::default()
        };
        assert_eq!(cleaned(config(99), "card 1234-5678, a Secret"), "card [redacted], a [redacted]");
        assert_eq!(cleaned(config(7), "card 1234-5678"), "card [r", "the match does not survive the cut");
        assert_eq!(cleaned(config(4), "abcé"), "abc", "cut at a character");
        assert_eq!(cleaned(TelemetryConfig::default(), &"x".repeat(20_000)).len(), 16_384);
    }

    #[test]
    fn nothing_is_captured_unless_asked_for() {
        assert!(Capture::new(&TelemetryConfig::default()).unwrap().is_none());
    }
}
