//! Control tokens that someone wrote out, such as `</s>` in a message: kept from becoming those tokens.
//!
//! A mark, a character that no message has, is set inside each such spelling. The template then renders as
//! ever, the tokenizer finds only what the template itself wrote, and takes the marks out before it merges.
//! Text without such a spelling gets no mark, and so goes the plain way. A letter's case is not looked at,
//! as a template may change it. What a message begins or ends with may be a part of a spelling that the
//! template completes: there stands a mark as well, where trimming does not see it.

use std::collections::HashSet;

use aho_corasick::AhoCorasick;
use tokenizers::Tokenizer;

use super::ChatMessage;
use crate::error::TextError;

/// The spellings that must not come from a message.
pub(super) struct Spellings {
    spellings: Vec<String>,
    finder: AhoCorasick,
}

impl Spellings {
    /// Those of a tokenizer's special tokens and of the tokens in `ends`. A spelling of one character cannot
    /// be broken and is left out.
    pub(super) fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self, String> {
        let added = tokenizer.get_added_tokens_decoder();
        let guarded = added.iter().filter(|(id, token)| token.special || ends.contains(id));
        let spellings: HashSet<String> =
            guarded.map(|(_, token)| token.content.clone()).filter(|text| text.chars().nth(1).is_some()).collect();
        let spellings: Vec<String> = spellings.into_iter().collect();
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(&spellings);
        Ok(Self { finder: finder.map_err(|error| error.to_string())?, spellings })
    }

    /// The text with every spelling broken, and the mark that breaks them; none where there is none.
    pub(super) fn mark_text(&self, text: &str) -> Result<Option<(String, char)>, TextError> {
        let places = self.inside(text);
        if places.is_empty() {
            return Ok(None);
        }
        let mark = unused([text])?;
        Ok(Some((insert(text, &places, mark), mark)))
    }

    /// The messages with every spelling broken, and the mark that breaks them; none where there is none.
    ///
    /// A role is a part of what the template writes, and may complete a spelling there.
    pub(super) fn mark_messages(
        &self,
        messages: &[ChatMessage],
    ) -> Result<Option<(Vec<ChatMessage>, char)>, TextError> {
        let places: Vec<_> = messages
            .iter()
            .map(|message| {
                let mut content = self.inside(&message.content);
                content.extend(self.at_the_ends(&message.content));
                content.sort_unstable();
                content.dedup();
                (self.inside(&message.role), content)
            })
            .collect();
        if places.iter().all(|(role, content)| role.is_empty() && content.is_empty()) {
            return Ok(None);
        }
        let mark = unused(messages.iter().flat_map(|message| [message.role.as_str(), message.content.as_str()]))?;
        let marked = messages.iter().zip(&places).map(|(message, (role, content))| ChatMessage {
            role: insert(&message.role, role, mark),
            content: insert(&message.content, content, mark),
        });
        Ok(Some((marked.collect(), mark)))
    }

    /// Behind the first character of each spelling, overlapping ones too.
    fn inside(&self, text: &str) -> Vec<usize> {
        let first = |start: usize| text[start..].chars().next().map_or(0, char::len_utf8);
        let mut places: Vec<usize> =
            self.finder.find_overlapping_iter(text).map(|found| found.start() + first(found.start())).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Before a text that may be the end of a spelling, and behind one that may be its beginning.
    fn at_the_ends(&self, text: &str) -> impl Iterator<Item = usize> {
        let start = text.len() - text.trim_start().len();
        let trimmed = text.trim().as_bytes();
        let mut places = [None, None];
        for spelling in self.spellings.iter().map(String::as_bytes) {
            for middle in 1..spelling.len() {
                let (before, after) = spelling.split_at(middle);
                if trimmed.len() >= after.len() && trimmed[..after.len()].eq_ignore_ascii_case(after) {
                    places[0] = Some(start);
                }
                let rest = trimmed.len().checked_sub(before.len());
                if rest.is_some_and(|rest| trimmed[rest..].eq_ignore_ascii_case(before)) {
                    places[1] = Some(start + trimmed.len());
                }
            }
            // One that is shorter than what is missing on both sides.
            if !trimmed.is_empty() && spelling.windows(trimmed.len()).any(|part| part.eq_ignore_ascii_case(trimmed)) {
                places = [Some(start), Some(start + trimmed.len())];
            }
        }
        places.into_iter().flatten()
    }
}

/// The text with a mark at each place; places are in order.
fn insert(text: &str, places: &[usize], mark: char) -> String {
    let mut marked = String::with_capacity(text.len() + places.len() * mark.len_utf8());
    let mut done = 0;
    for &place in places {
        marked.push_str(&text[done..place]);
        marked.push(mark);
        done = place;
    }
    marked.push_str(&text[done..]);
    marked
}

/// A character that stands in none of the texts: one that Unicode gives no meaning, or else one for private
/// use. All of them together would take half a megabyte of text.
fn unused<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<char, TextError> {
    let candidates = || ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{10fffd}');
    let is_candidate = |c: &char| *c >= '\u{f0000}' || ('\u{fdd0}'..='\u{fdef}').contains(c);
    let used: HashSet<char> = texts.into_iter().flat_map(str::chars).filter(is_candidate).collect();
    let all = || TextError::Tokenize("the text has every character for private use".to_owned());
    candidates().find(|c| !used.contains(c)).ok_or_else(all)
}
