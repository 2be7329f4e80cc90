//! Stop strings, found across any division of the text into pieces.
//!
//! Invariants: text once given out is never part of a stop string; the outcome does not depend on where
//! the pieces end. The match that is complete first wins, the longest of those that end together. Each
//! byte costs one automaton step per stop string, however long the answer.

use super::Piece;

/// Holds back what may begin a stop string, until it does or cannot.
#[derive(Debug)]
pub(super) struct StopStrings {
    matchers: Vec<Matcher>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Watches for `stops`; empty ones never match.
    pub(super) fn new(stops: &[String]) -> Self {
        let matchers = stops.iter().filter(|stop| !stop.is_empty()).map(|stop| Matcher::new(stop)).collect();
        Self { matchers, held: String::new(), stopped: false }
    }

    /// Adds text and gives what has become final. After a stop there is no more text.
    pub(super) fn push(&mut self, text: &str) -> Piece {
        if self.stopped {
            return Piece::Text(String::new());
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (offset, byte) in text.bytes().enumerate() {
            let longest = self.matchers.iter_mut().filter_map(|matcher| matcher.step(byte)).max();
            if let Some(length) = longest {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(before + offset + 1 - length);
                return Piece::Stopped(text);
            }
        }
        let may_begin_a_stop = self.matchers.iter().map(|matcher| matcher.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - may_begin_a_stop);
        Piece::Text(std::mem::replace(&mut self.held, held))
    }

    /// What is held back when the text ends here.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Knuth, Morris and Pratt's automaton for one stop string.
#[derive(Debug)]
struct Matcher {
    pattern: Box<[u8]>,
    /// For each length of a prefix, the length of its longest proper prefix that is also its suffix.
    borders: Box<[usize]>,
    /// How much of the pattern the text now ends with.
    matched: usize,
}

impl Matcher {
    fn new(stop: &str) -> Self {
        let pattern: Box<[u8]> = stop.as_bytes().into();
        let mut borders = vec![0; pattern.len() + 1].into_boxed_slice();
        let mut border = 0;
        for end in 1..pattern.len() {
            while border > 0 && pattern[border] != pattern[end] {
                border = borders[border];
            }
            border += usize::from(pattern[border] == pattern[end]);
            borders[end + 1] = border;
        }
        Self { pattern, borders, matched: 0 }
    }

    /// Takes one byte; the pattern's length when it is now complete.
    fn step(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.borders[self.matched];
        }
        self.matched += usize::from(self.pattern[self.matched] == byte);
        (self.matched == self.pattern.len()).then_some(self.matched)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule in its plainest form: the shortest prefix that ends with a stop string, without the longest such.
    fn reference(text: &str, stops: &[String]) -> (String, bool) {
        for end in 0..=text.len() {
            let ending =
                stops.iter().filter(|stop| !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(length) = ending.map(String::len).max() {
                return (text[..end - length].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    fn run<'a>(pieces: impl IntoIterator<Item = &'a str>, stops: &[String]) -> (String, bool) {
        let mut watched = StopStrings::new(stops);
        let mut output = String::new();
        for piece in pieces {
            match watched.push(piece) {
                Piece::Text(text) => output.push_str(&text),
                Piece::Stopped(text) => return (output + &text, true),
            }
        }
        (output + &watched.finish(), false)
    }

    fn check(pieces: &[&str], stops: &[&str], expected: &str, stopped: bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        assert_eq!(run(pieces.iter().copied(), &stops), (expected.to_owned(), stopped), "{pieces:?} {stops:?}");
    }

    #[test]
    fn a_stop_is_found_across_pieces() {
        check(&["one\n", "\ntwo"], &["\n\n"], "one", true);
        check(&["a", "b", "a", "b", "c"], &["abc"], "ab", true);
        check(&["aa", "aab"], &["aab"], "aa", true);
        check(&["x</", "s", "> y"], &["</s>"], "x", true);
        check(&["grün"], &["ü"], "gr", true);
    }

    #[test]
    fn the_first_complete_match_wins() {
        check(&["abcd"], &["bcd", "c"], "ab", true);
        check(&["a", "b", "c", "d"], &["bcd", "c"], "ab", true);
        check(&["abcd"], &["c", "abc"], "", true);
    }

    #[test]
    fn without_a_match_everything_comes_out() {
        check(&["ab", "ab"], &["abc", ""], "abab", false);
        check(&["text"], &[], "text", false);
        check(&[], &["stop"], "", false);
    }

    #[test]
    fn only_what_may_begin_a_stop_is_held() {
        let mut watched = StopStrings::new(&["END".to_owned()]);
        assert_eq!(watched.push("the E"), Piece::Text("the ".to_owned()));
        assert_eq!(watched.push("N"), Piece::Text(String::new()));
        assert_eq!(watched.push("tree"), Piece::Text("ENtree".to_owned()));
    }

    #[test]
    fn nothing_follows_a_stop() {
        let mut watched = StopStrings::new(&["b".to_owned()]);
        assert_eq!(watched.push("abc"), Piece::Stopped("a".to_owned()));
        assert_eq!(watched.push("more"), Piece::Text(String::new()));
        assert_eq!(watched.finish(), "");
    }

    proptest! {
        #[test]
        fn any_division_gives_what_the_whole_text_gives(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let expected = reference(&pieces.concat(), &stops);
            prop_assert_eq!(run(pieces.iter().map(String::as_str), &stops), expected);
        }
    }
}
