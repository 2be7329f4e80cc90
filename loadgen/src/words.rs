//! What people read: figures with the digits worth reading, nouns that agree, text of strangers made harmless.

use std::fmt::Write as _;
use std::io::Write as _;

/// As many digits as are worth reading.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        value if value < 10.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Milliseconds with their unit.
pub fn ms(value: f64) -> String {
    format!("{} ms", number(value))
}

/// A share as a whole percentage; a small one is not shown as none.
pub fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.005 { "<1%".into() } else { format!("{:.0}%", share * 100.0) }
}

/// A count with its noun, in the plural where that is right.
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// At most `limit` characters of a text that others wrote; those that would steer a terminal, turn the direction of
/// writing or not be seen at all are escaped.
pub fn plain(text: &str, limit: usize) -> String {
    let mut plain = String::new();
    for c in text.chars().take(limit) {
        if steers(c) {
            // Writing to a string does not fail.
            let _ = write!(plain, "\\u{{{:x}}}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Writes a line to stderr; one that nobody reads any more is no error.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Control characters, line and paragraph separators, and what Unicode calls format characters.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A URL without user, password, query and fragment, and without a slash at its end; other text as it is.
pub fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    format!("{scheme}://{}", rest.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_worth_reading() {
        for (value, expected) in [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (999.96, "1000.0"), (1234.5, "1234")]
        {
            assert_eq!(number(value), expected);
        }
        for (share, expected) in [(0.0, "0%"), (0.001, "<1%"), (0.006, "1%"), (0.5, "50%"), (1.0, "100%")] {
            assert_eq!(percent(share), expected);
        }
    }

    #[test]
    fn what_would_steer_a_terminal_is_escaped() {
        let table = [
            ("plain é 日本 🦀", "plain é 日本 🦀"),
            ("a\u{1b}[31mb\r\n\u{9b}", "a\\u{1b}[31mb\\u{d}\\u{a}\\u{9b}"),
            ("\u{202e}\u{2066}\u{200f}\u{61c}\u{feff}", "\\u{202e}\\u{2066}\\u{200f}\\u{61c}\\u{feff}"),
        ];
        for (text, expected) in table {
            assert_eq!(plain(text, 100), expected);
        }
        assert_eq!(plain("abc", 2), "ab");
    }

    #[test]
    fn urls_lose_their_secrets() {
        for (text, expected) in [
            ("http://h:1/a/", "http://h:1/a"),
            ("http://me:p@ss@h/?key=1#2", "http://h"),
            ("https://token@[::1]:99999999", "https://[::1]:99999999"),
            ("runs/a@b.json", "runs/a@b.json"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }
}
