//! A vocabulary that can spell any text: three special tokens, every byte, and made-up words.
//!
//! Every word is a shorter word and a letter, so merging pairs, best score first, reaches all of them.

/// What SentencePiece puts where a space was.
pub(super) const SPACE: char = '\u{2581}';

/// `<unk>`, `<s>`, `</s>`, in the order of their ids.
pub(super) const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Tokens before the first word: the special ones and the bytes.
pub(super) const FIRST_WORD: usize = SPECIALS.len() + 256;

/// Exactly `size` tokens, of which those from [`FIRST_WORD`] on are words, shortest first.
pub(super) fn tokens(size: usize) -> Vec<String> {
    let specials = SPECIALS.iter().map(|&token| token.to_owned());
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    specials.chain(bytes).chain(words()).take(size).collect()
}

/// The space, then `a` and `▁a` to `z` and `▁z`, then two letters, then three.
fn words() -> impl Iterator<Item = String> {
    let word = |index: usize| {
        let mut letters = Vec::new();
        let mut left = index + 1;
        while left > 0 {
            left -= 1;
            letters.push((b'a' + (left % 26) as u8) as char);
            left /= 26;
        }
        letters.iter().rev().collect::<String>()
    };
    let both = move |index| [word(index), format!("{SPACE}{}", word(index))];
    std::iter::once(SPACE.to_string()).chain((0..).flat_map(both))
}

/// The pair each merged word is made of: all but its last letter, and that letter.
pub(super) fn merges(tokens: &[String]) -> Vec<(&str, &str)> {
    let words = tokens.iter().skip(FIRST_WORD);
    words
        .filter_map(|word| word.char_indices().next_back().filter(|&(at, _)| at > 0).map(|(at, _)| word.split_at(at)))
        .collect()
}
