//! Tokenizers built in code, and what holds for the module as a whole.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use proptest::prelude::*;

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

/// The ids that a text has where nothing in it is a control token.
fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| 3 + u32::from(byte)).collect()
}

/// What a template makes of one message.
fn chat(template: &str, content: &str) -> Vec<u32> {
    byte_level(Some(template)).encode_prompt(content, PromptTemplate::Chat).unwrap()
}

#[test]
fn nobody_can_forge_a_control_token() {
    let template = "<s>{{ messages[0].content }}</s>";
    for content in [
        "</s>",
        "a</s><s>b",
        "<</s>>",
        "</s></s",
        "</s>  ",
        "<unk",
        "s>",
        "<",
        "</",
        "\u{fdd0}</s>\u{fdd1}",
        "</S>",
        "<<s>",
        "plain",
        "",
        " ",
    ] {
        assert_eq!(chat(template, content), [&[1], &bytes(content)[..], &[2]].concat(), "{content:?}");
        let trimmed = chat("<s>{{ messages[0].content | trim }}</s>", content);
        assert_eq!(trimmed, [&[1], &bytes(content.trim())[..], &[2]].concat(), "{content:?}");
    }
    // Neither by what the template does to a message, nor with what it puts beside it.
    assert_eq!(chat("{{ messages[0].content | lower }}", "</S>"), bytes("</s>"));
    assert_eq!(chat("{{ messages[0].content }}s>", "</"), bytes("</s>"));
    assert_eq!(chat("{{ messages[0].content | trim }}s>", "</ \n"), bytes("</s>"));
    assert_eq!(chat("</{{ messages[0].content }}", "s>!"), bytes("</s>!"));
    assert_eq!(chat("</{{ messages[0].content }}>", "s"), bytes("</s>"));
    assert_eq!(chat("{{ messages[0].content + messages[0].content }}", "s><"), bytes("s><s><"));
    // A role may be a part of what the template writes.
    assert_eq!(chat("<{{ messages[0].role[3:] | replace('r', 's') }}>", "x"), [1]);
    let forged = ChatMessage { role: "</s>".to_owned(), content: "x".to_owned() };
    let text = byte_level(Some("<s>{{ messages[0].role }}"));
    assert_eq!(text.encode_chat(&[forged]).unwrap(), [&[1], &bytes("</s>")[..]].concat());
    // Without a template too; a raw prompt is taken as it is.
    let text = Text::byte_level_for_tests();
    assert_eq!(text.encode_prompt("</s>", PromptTemplate::Chat).unwrap(), [&[1], &bytes("</s>")[..]].concat());
    assert_eq!(text.encode_prompt("</s>", PromptTemplate::Raw).unwrap(), [1, 2]);
    assert_eq!(text.encode_plain("x</s>", SpecialTokens::Omit).unwrap(), bytes("x</s>"));
    let every: String = ('\u{f0000}'..='\u{10fffd}').chain('\u{fdd0}'..='\u{fdef}').collect();
    assert_eq!(text.encode_plain(&every, SpecialTokens::Omit).unwrap(), bytes(&every));
    let error = text.encode_plain(&(every + "</s>"), SpecialTokens::Omit).unwrap_err();
    assert!(error.to_string().contains("private use"), "{error}");
}

/// A `llama` vocabulary: specials 0 to 2, bytes 3 to 258, then `pieces`, the earlier the better their score.
pub(super) fn llama_vocabulary(pieces: &[&str]) -> GgufVocabulary {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let pieces_owned = pieces.iter().map(|piece| (*piece).to_owned());
    GgufVocabulary {
        model: "llama".to_owned(),
        tokens: special.into_iter().chain(bytes).chain(pieces_owned).collect(),
        scores: [0.0; 259].into_iter().chain((0..pieces.len()).map(|rank| -(rank as f32))).collect(),
        types: [2, 3, 3].into_iter().chain([6; 256]).chain(pieces.iter().map(|_| 1)).collect(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        add_bos: true,
        add_space_prefix: true,
        ..GgufVocabulary::default()
    }
}

const PIECES: [&str; 11] = ["▁h", "▁he", "he", "▁▁", "▁", "h", "e", "é", "a", "aé", "b"];

fn llama() -> Text {
    Text::from_gguf(Path::new("tiny.gguf"), llama_vocabulary(&PIECES)).unwrap()
}

/// Everything a stream gives out, and whether it stopped.
fn streamed(text: &Text, ids: &[u32], stops: &[String]) -> (String, bool) {
    let mut stream = text.stream(stops);
    let mut output = String::new();
    for &id in ids {
        match stream.push(id) {
            Piece::Text(text) => output.push_str(&text),
            Piece::Stopped(text) => return (output + &text, true),
        }
    }
    (output + &stream.finish(), false)
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

#[test]
fn a_templated_prompt_has_one_begin_token() {
    let text = byte_level(Some("{{ bos_token }}{{ messages[0].role }}:{{ messages[0].content }}{{ eos_token }}"));
    let expected: Vec<u32> =
        [1].into_iter().chain("user:x".bytes().map(|byte| 3 + u32::from(byte))).chain([2]).collect();
    assert_eq!(text.encode_prompt("x", PromptTemplate::Chat).unwrap(), expected);
    assert_eq!(text.encode_prompt("x", PromptTemplate::Raw).unwrap(), [1, 3 + 120]);
    let error = Text::byte_level_for_tests().render_chat(&[]).unwrap_err();
    assert_eq!(error.to_string(), "chat template: the model has none");
}

#[test]
fn no_half_character_and_no_part_of_a_stop_comes_out() {
    let text = Text::byte_level_for_tests();
    let mut stream = text.stream(&["é!".to_owned()]);
    let expected =
        [("a", 97), ("", 0xc3), ("", 0xa9), ("é?", 63), ("", 0xc3), ("\u{fffd}b", 98), ("", 0xe2), ("", 0x82)];
    for (out, byte) in expected {
        assert_eq!(stream.push(3 + byte), Piece::Text(out.to_owned()));
    }
    assert_eq!(stream.finish(), "\u{fffd}");

    let mut stream = text.stream(&["é!".to_owned()]);
    let pieces: Vec<Piece> = [0xc3, 0xa9, 33, 97].into_iter().map(|byte| stream.push(3 + byte)).collect();
    assert_eq!(pieces[2], Piece::Stopped(String::new()));
    assert_eq!(pieces[3], Piece::Text(String::new()));
}

#[test]
fn only_the_first_space_is_the_tokenizers() {
    let text = llama();
    let ids = text.encode("  he h", SpecialTokens::Add).unwrap();
    assert_eq!(text.decode(&ids).unwrap(), "  he h");
    let space = text.encode("", SpecialTokens::Add).unwrap();
    assert_eq!(space, [1]);
    let mut stream = text.stream(&[]);
    let he = 259 + 1;
    assert_eq!(stream.push(1), Piece::Text(String::new()));
    assert_eq!(stream.push(he), Piece::Text("he".to_owned()));
    assert_eq!(stream.push(he), Piece::Text(" he".to_owned()));
    assert_eq!(stream.push(100_000), Piece::Text(String::new()));
}

proptest! {
    #[test]
    fn a_message_gives_what_its_text_gives(content in "([ aehé]|</?s>|<unk>|[</s>]){0,12}") {
        let template = "<s>{{ messages[0].content }}</s>";
        let expected = [&[1], &bytes(&content)[..], &[2]].concat();
        prop_assert_eq!(chat(template, &content), expected);
    }

    #[test]
    fn marks_change_no_merge(content in "[ aehé]{0,20}", spelling in "(</s>|<s>|<unk>)?") {
        let text = llama();
        let whole = content + &spelling + "he";
        let unmarked = text.encode(&whole.replace('<', "{"), SpecialTokens::Add).unwrap();
        let open = text.encode("a{", SpecialTokens::Omit).unwrap().last().copied();
        let marked: Vec<u32> = text.encode_plain(&whole, SpecialTokens::Add).unwrap();
        let less = text.encode("a<", SpecialTokens::Omit).unwrap().last().copied();
        let back: Vec<u32> = marked.iter().map(|id| if Some(*id) == less { open.unwrap() } else { *id }).collect();
        prop_assert_eq!(back, unmarked);
    }

    #[test]
    fn a_stream_gives_what_decode_gives(ids in prop::collection::vec(0_u32..270, 0..40)) {
        for text in [llama(), Text::byte_level_for_tests()] {
            let ids: Vec<u32> = ids.iter().map(|id| id % text.vocab_size() as u32).collect();
            prop_assert_eq!(streamed(&text, &ids, &[]), (text.decode(&ids).unwrap(), false));
        }
    }

    #[test]
    fn decoding_agrees_with_the_library(input in "([ aehé▁]|\\PC){0,20}", ascii in "[ -~\n]{0,20}") {
        for input in [input, ascii] {
            for vocabulary in [llama_vocabulary(&PIECES), GgufVocabulary { add_space_prefix: false, ..llama_vocabulary(&PIECES) }] {
                let oracle = vocabulary.tokenizer().unwrap();
                let text = Text::from_gguf(Path::new("tiny.gguf"), vocabulary).unwrap();
                let ids = text.encode(&input, SpecialTokens::Add).unwrap();
                prop_assert_eq!(text.decode(&ids).unwrap(), oracle.decode(&ids, true).unwrap());
            }
            let text = Text::byte_level_for_tests();
            let ids = text.encode(&input, SpecialTokens::Add).unwrap();
            prop_assert_eq!(text.decode(&ids).unwrap(), input);
        }
    }

    #[test]
    fn a_stop_cuts_the_same_wherever_tokens_end(
        input in "[abhe é]{0,30}",
        stops in prop::collection::vec("[abhe é]{0,3}", 0..3),
    ) {
        let bytes = Text::byte_level_for_tests();
        let llama = llama();
        let by_byte = streamed(&bytes, &bytes.encode(&input, SpecialTokens::Omit).unwrap(), &stops);
        let by_piece = streamed(&llama, &llama.encode(&input, SpecialTokens::Omit).unwrap(), &stops);
        prop_assert_eq!(&by_byte, &by_piece);
        let first = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| Some(input.find(stop)? + stop.len())).min();
        prop_assert_eq!(by_byte.1, first.is_some());
        prop_assert!(input.starts_with(&by_byte.0));
        if first.is_none() {
            prop_assert_eq!(by_byte.0, input);
        }
    }
}
