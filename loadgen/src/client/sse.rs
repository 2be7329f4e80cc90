//! Server-sent events from bytes that arrive in any pieces.
//!
//! Follows the WHATWG event-stream rules: LF, CRLF and CR end a line, `data` lines join with LF, lines that
//! begin with a colon are comments, a blank line dispatches, an event cut off by the end of the stream is
//! dropped. Memory is bounded: an event larger than [`EVENT_LIMIT`] is an error.

use thiserror::Error;

/// The largest event accepted, in bytes of its lines.
pub const EVENT_LIMIT: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `event` field; empty when none was sent.
    pub name: String,
    /// The `data` lines.
    pub data: String,
}

/// An event grew past [`EVENT_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a streamed event is larger than {EVENT_LIMIT} bytes")]
pub struct EventTooLarge;

/// The parser's state between two reads.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    size: usize,
    past_first_line: bool,
    /// A CR ended the last line: an LF that follows belongs to it.
    after_cr: bool,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the events they complete to `events`.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), EventTooLarge> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.grow(rest.len())?;
                self.line.extend_from_slice(rest);
                return Ok(());
            };
            self.grow(end)?;
            self.line.extend_from_slice(&rest[..end]);
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(events);
        }
        Ok(())
    }

    fn grow(&mut self, by: usize) -> Result<(), EventTooLarge> {
        self.size = self.size.saturating_add(by);
        if self.size > EVENT_LIMIT { Err(EventTooLarge) } else { Ok(()) }
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let bytes = std::mem::take(&mut self.line);
        let mut line = bytes.as_slice();
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(events);
        } else if line[0] == b':' {
            // A comment: nothing of it is kept, so it must not count against the event's size either.
            self.size -= bytes.len();
        } else {
            self.field(line);
        }
        // The line's buffer is used again.
        self.line = bytes;
        self.line.clear();
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(&value);
            }
            b"event" => self.name = value.into_owned(),
            _ => {}
        }
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) {
            events.push(Event { name, data });
        }
        self.size = 0;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events).unwrap();
        }
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn fields_comments_and_line_ends() {
        let stream = "\u{feff}data: a\n\n: keep-alive\n\ndata:b\r\ndata:  c\r\n\r\nevent: error\rdata\r\rid: 1\nretry: 5\n\n\
                      event: lost\n\ndata: é\u{1f600}\n\ndata: cut";
        let expected = vec![event("", "a"), event("", "b\n c"), event("error", ""), event("", "é\u{1f600}")];
        assert_eq!(parse(&[stream.as_bytes()]), expected);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        let line = [b'x'; 1 << 16];
        let refused = (0..=EVENT_LIMIT / line.len()).any(|_| parser.push(&line, &mut events).is_err());
        assert!(refused && events.is_empty());
    }

    #[test]
    fn comments_forever_are_no_event() {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        let comment = [b":".as_slice(), &[b'x'; 1 << 16], b"\n"].concat();
        for _ in 0..=2 * EVENT_LIMIT / comment.len() {
            parser.push(&comment, &mut events).unwrap();
        }
        assert!(events.is_empty());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            lines in prop::collection::vec(
                prop_oneof![Just(String::new()), "data: ?[a-zé€\u{1f600} :]{0,8}", "event: ?[a-z]{0,4}", ":[a-z]{0,4}", "[a-z: ]{0,6}"],
                0..24,
            ),
            ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r")], 24),
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream: String = lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let bytes = stream.as_bytes();
            let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&pieces), parse(&[bytes]));
        }
    }
}
