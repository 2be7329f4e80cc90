//! Prompts and answers as span attributes; only where capture was asked for.

use opentelemetry::KeyValue;
use serde_json::json;

use super::names;
use crate::ledger::Content;

/// The most bytes of a prompt or an answer in a span: a captured novel must not fill the span queue.
const LIMIT: usize = 16 << 10;

/// The conventions' two attributes, each a JSON string.
pub(super) fn attributes(content: &Content) -> [KeyValue; 2] {
    let message = |role: &str, text: &str| {
        let text = &text[..text.floor_char_boundary(LIMIT)];
        json!([{"role": role, "parts": [{"type": "text", "content": text}]}]).to_string()
    };
    [
        KeyValue::new(names::INPUT_MESSAGES, message("user", &content.prompt)),
        KeyValue::new(names::OUTPUT_MESSAGES, message("assistant", &content.answer)),
    ]
}
