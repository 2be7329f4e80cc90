//! One vocabulary in both formats against what Hugging Face `tokenizers` and a textbook SentencePiece gave.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use candle_core::quantized::gguf_file::{Content, Value};
use engine::{GgufVocabulary, Piece, SpecialTokens, Text};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizer")
}

fn from_gguf() -> Text {
    let path = goldens().join("tokenizer.gguf");
    let content = Content::read(&mut BufReader::new(File::open(&path).unwrap())).unwrap();
    let value = |key: &str| &content.metadata[&format!("tokenizer.ggml.{key}")];
    let list = |key: &str| value(key).to_vec().unwrap();
    let vocabulary = GgufVocabulary {
        model: value("model").to_string().unwrap().clone(),
        tokens: list("tokens").iter().map(|token| token.to_string().unwrap().clone()).collect(),
        scores: list("scores").iter().map(|score| score.to_f32().unwrap()).collect(),
        types: list("token_type").iter().map(|kind: &Value| kind.to_i32().unwrap()).collect(),
        bos: Some(value("bos_token_id").to_u32().unwrap()),
        eos: Some(value("eos_token_id").to_u32().unwrap()),
        unknown: Some(value("unknown_token_id").to_u32().unwrap()),
        add_bos: value("add_bos_token").to_bool().unwrap(),
        add_space_prefix: value("add_space_prefix").to_bool().unwrap(),
        ..GgufVocabulary::default()
    };
    Text::from_gguf(&path, vocabulary).unwrap()
}

fn check(text: &Text) {
    let cases: serde_json::Value = serde_json::from_reader(File::open(goldens().join("cases.json")).unwrap()).unwrap();
    assert!(cases.as_array().unwrap().len() > 30);
    for case in cases.as_array().unwrap() {
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
        let (input, decoded) = (case["text"].as_str().unwrap(), case["decoded"].as_str().unwrap());
        assert_eq!(text.encode(input, SpecialTokens::Omit).unwrap(), ids("ids"), "{input:?}");
        let with_special = ids("ids_with_special");
        assert_eq!(text.encode(input, SpecialTokens::Add).unwrap(), with_special, "{input:?}");
        assert_eq!(text.decode(&with_special).unwrap(), decoded);
        assert_eq!(streamed(text, &with_special), decoded);
    }
}

fn streamed(text: &Text, ids: &[u32]) -> String {
    let mut stream = text.stream(&[]);
    let mut output = String::new();
    for &id in ids {
        match stream.push(id) {
            Piece::Text(text) => output.push_str(&text),
            Piece::Stopped(text) => panic!("stopped after {text:?} without a stop string"),
        }
    }
    output + &stream.finish()
}

#[test]
fn tokenizer_json_gives_the_goldens() {
    let text = Text::from_huggingface(&goldens()).unwrap();
    check(&text);
    assert_eq!(text.vocab_size(), 600);
    assert!(!text.has_chat_template());
}

#[test]
fn gguf_gives_the_goldens() {
    let text = from_gguf();
    check(&text);
    assert_eq!(text.vocab_size(), 600);
    assert!(text.is_end(2));
}

#[test]
fn both_formats_agree_on_control_tokens_in_text() {
    let (json, gguf) = (Text::from_huggingface(&goldens()).unwrap(), from_gguf());
    for input in ["</s>", "a</s> b", "<s><s>", "<unk>", "<0x41>", "< /s>", "</s", "▁</s>▁"] {
        for special in [SpecialTokens::Add, SpecialTokens::Omit] {
            assert_eq!(json.encode(input, special).unwrap(), gguf.encode(input, special).unwrap(), "{input:?}");
        }
    }
    assert_eq!(json.encode("</s>", SpecialTokens::Omit).unwrap(), [2]);
}

#[test]
fn a_megabyte_of_anything_is_encoded() {
    let text = from_gguf();
    for unit in ["a", " ", "é", "東", "\0", "the "] {
        let input = unit.repeat((1 << 20) / unit.len());
        let ids = text.encode(&input, SpecialTokens::Omit).unwrap();
        assert_eq!(text.decode(&ids).unwrap(), input, "{unit:?}");
    }
}
