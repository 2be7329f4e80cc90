//! Tokenizers built in code, and what holds for the module as a whole.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use super::*;

/// See [`Text::byte_level_for_tests`].
pub(super) fn byte_level(chat_template: Option<&str>) -> Text {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=u8::MAX).map(|byte| byte_level::character(byte).to_string());
    let vocabulary = GgufVocabulary {
        model: "gpt2".to_owned(),
        tokens: special.into_iter().chain(bytes).collect(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        add_bos: true,
        chat_template: chat_template.map(str::to_owned),
        ..GgufVocabulary::default()
    };
    Text::from_gguf(Path::new("bytes.gguf"), vocabulary).unwrap()
}

#[test]
fn each_byte_is_a_token() {
    let text = Text::byte_level_for_tests();
    assert_eq!(text.vocab_size(), 259);
    assert_eq!(text.encode_prompt("a\n", PromptTemplate::Chat).unwrap(), [1, 3 + 97, 3 + 10]);
    assert_eq!(text.encode("é</s>", SpecialTokens::Omit).unwrap(), [3 + 0xc3, 3 + 0xa9, 2]);
    assert_eq!(text.decode(&[1, 3 + 0xc3, 3 + 0xa9, 2]).unwrap(), "é");
    assert_eq!(text.decode(&[259]), Err(TextError::UnknownId { id: 259, vocabulary: 259 }));
    assert!(text.is_end(2) && !text.is_end(1));
    assert_eq!(text.piece(3 + 32).unwrap(), "Ġ");
}
