//! Byte-level BPE: every byte is written as one printable character, and merges join these.

use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, Merges},
    pre_tokenizers::{
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::gguf::GgufVocabulary;

/// How Llama 3 splits a text before merging.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// How Mistral's Tekken splits a text before merging.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The tokenizer of a `gpt2` vocabulary, still without its added tokens.
pub(super) fn tokenizer(vocabulary: &GgufVocabulary) -> Result<Tokenizer, String> {
    let (pre_tokenizer, whole_words_first) = match vocabulary.pre.as_deref() {
        None | Some("gpt-2") => (ByteLevel::new(false, true, true).into(), false),
        Some("llama-bpe") => (split_by(LLAMA3)?, true),
        Some("tekken") => (split_by(TEKKEN)?, true),
        Some(other) => {
            return Err(format!("tokenizer.ggml.pre is `{other}`; only gpt-2, llama-bpe and tekken are supported"));
        }
    };
    let ids = vocabulary.ids();
    let pair = |merge: &String| {
        let (left, right) = merge.split_once(' ')?;
        let known = [left, right, &format!("{left}{right}")].iter().all(|token| ids.contains_key(*token));
        known.then(|| (left.to_owned(), right.to_owned()))
    };
    let merges: Merges = vocabulary.merges.iter().filter_map(pair).collect();
    let ignored = vocabulary.merges.len() - merges.len();
    if ignored > 0 {
        tracing::warn!("tokenizer.ggml.merges has {ignored} entries that are no pair of tokens: they are left out");
    }
    let bpe = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(whole_words_first);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(|error| format!("tokenizer.ggml.merges: {error}"))?);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

fn split_by(pattern: &str) -> Result<PreTokenizerWrapper, String> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|error| error.to_string())?;
    Ok(Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into())
}

/// The bytes a token stands for; one with any other character in it, such as an added token, is plain text.
pub(super) fn bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

fn byte(character: char) -> Option<u8> {
    match u8::try_from(character) {
        Ok(byte) if printable(byte) => Some(byte),
        _ => {
            let nth = (character as usize).checked_sub(0x100)?;
            UNPRINTABLE.iter().flat_map(|range| range.clone()).nth(nth)
        }
    }
}

/// Bytes that Latin-1 does not show, in order.
const UNPRINTABLE: [std::ops::RangeInclusive<u8>; 3] = [0..=32, 127..=160, 173..=173];

fn printable(byte: u8) -> bool {
    !UNPRINTABLE.iter().any(|range| range.contains(&byte))
}

/// The character that stands for a byte: itself where it is printable in Latin-1, else one from U+0100 on.
#[cfg(test)]
pub(super) fn character(byte: u8) -> char {
    if printable(byte) {
        return char::from(byte);
    }
    let unprintable_before = (0..byte).filter(|other| !printable(*other)).count();
    char::from_u32(0x100 + unprintable_before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        for value in 0..=u8::MAX {
            assert_eq!(byte(character(value)), Some(value));
        }
        let alphabet: std::collections::HashSet<char> = (0..=u8::MAX).map(character).collect();
        assert!(tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().iter().all(|c| alphabet.contains(c)));
        assert_eq!(character(b' '), 'Ġ');
    }

    #[test]
    fn other_characters_are_plain_text() {
        assert_eq!(bytes("Ġa"), b" a");
        assert_eq!(bytes("▁a"), "▁a".as_bytes());
        assert_eq!(byte('\u{144}'), None);
    }
}
