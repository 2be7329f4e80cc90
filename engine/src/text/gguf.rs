//! Tokenizers from the vocabulary in a GGUF file: SentencePiece BPE (`llama`) and byte-level BPE (`gpt2`).
//!
//! The loader reads the metadata and fills a [`GgufVocabulary`]; here it is checked and made into the
//! tokenizer that the model's `tokenizer.json` would give. Encoding follows `transformers`, which, like
//! llama.cpp with special tokens parsed, recognises control tokens written out in a text.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer, models::bpe::Vocab};

use super::{
    byte_level, ends, sentencepiece,
    vocabulary::{MAX_TOKENS, Renamed},
};

/// The `tokenizer.*` keys of a GGUF file's metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: `llama` or `gpt2`.
    pub model: String,
    /// `tokenizer.ggml.tokens`: each id's spelling.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`: what `llama` merges by; empty for `gpt2`.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`; empty means that all are normal.
    pub types: Vec<i32>,
    /// `tokenizer.ggml.merges`: pairs with a space between, in order of rank; empty for `llama`.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.eot_token_id` and its like: what else ends an answer, beside tokens known by name.
    pub ends: Vec<u32>,
    /// `tokenizer.ggml.add_bos_token`; where absent, true for `llama`.
    pub add_bos: bool,
    /// `tokenizer.ggml.add_space_prefix`; where absent, true for `llama`.
    pub add_space_prefix: bool,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// `tokenizer.ggml.pre`: how `gpt2` splits a text before merging.
    pub pre: Option<String>,
}

/// A value of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    /// A piece of text, which merges make.
    Normal,
    /// Never text: begin of sequence, end of sequence, `[INST]`.
    Control,
    /// A piece of text that is found before merging.
    UserDefined,
    /// A single byte, or a token not in use.
    Other,
}

/// `tokenizer.ggml.token_type` of a control token, and of one that no text gives.
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

impl GgufVocabulary {
    /// Checks the metadata, and makes of them what [`tokenizer`](Self::tokenizer) can be built from: `ends` has
    /// all ends, which are control tokens, and each spelling is there once.
    pub(super) fn prepare(&mut self) -> Result<Renamed, String> {
        self.validate()?;
        let mut first: HashMap<&str, u32> = HashMap::with_capacity(self.tokens.len());
        for (token, id) in self.tokens.iter().zip(0..) {
            first.entry(token).or_insert(id);
        }
        let ends = ends::find(self.ends.iter().copied().chain(self.eos), |name| first.get(name).copied());
        if self.types.is_empty() {
            self.types = vec![1; self.tokens.len()];
        }
        for &end in &ends {
            let kind = std::mem::replace(&mut self.types[end as usize], CONTROL);
            if kind != CONTROL {
                tracing::warn!(
                    "token {end}, {:?}, ends an answer: it is taken for a control token",
                    self.spelling(end)
                );
            }
        }
        self.ends = ends;
        Ok(self.rename())
    }

    /// Gives tokens that are empty or equal to an earlier one a spelling that no other token has: text gives
    /// the earlier one, and each id still stands for what the file says.
    fn rename(&mut self) -> Renamed {
        let mut seen: HashSet<String> = HashSet::with_capacity(self.tokens.len());
        let mut renamed = Renamed::new();
        let all: HashSet<&String> = self.tokens.iter().collect();
        for (id, token) in self.tokens.iter().enumerate() {
            if !token.is_empty() && seen.insert(token.clone()) {
                continue;
            }
            let mut unique = format!("\u{fdd0}{id}");
            while all.contains(&unique) {
                unique.insert(0, '\u{fdd0}');
            }
            let is_text = self.token_type(id) != TokenType::Control;
            renamed.insert(id as u32, (unique, is_text));
        }
        drop(all);
        if let Some((id, _)) = renamed.iter().min_by_key(|(id, _)| **id) {
            tracing::warn!(
                "tokenizer.ggml.tokens has {} entries that are empty or equal to an earlier one, first that of id {id}, {:?}: \
                no text is encoded to them",
                renamed.len(),
                self.spelling(*id),
            );
        }
        for (id, (spelling, _)) in &mut renamed {
            std::mem::swap(&mut self.tokens[*id as usize], spelling);
            self.types[*id as usize] = UNUSED;
        }
        renamed
    }

    /// The tokenizer that [prepared](Self::prepare) metadata describe.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer, String> {
        let mut tokenizer = match self.model.as_str() {
            "llama" => sentencepiece::tokenizer(self)?,
            "gpt2" => byte_level::tokenizer(self)?,
            other => {
                return Err(format!("tokenizer.ggml.model is `{other}`; only `llama` and `gpt2` are supported"));
            }
        };
        tokenizer.add_tokens(&self.added_tokens());
        if let Some(bos) = self.bos.filter(|_| self.add_bos) {
            tokenizer.with_post_processor(Some(begin_with(bos, self.spelling(bos))?));
        }
        Ok(tokenizer)
    }

    /// The spelling of an id that [`validate`](Self::validate) has seen.
    pub(super) fn spelling(&self, id: u32) -> &str {
        &self.tokens[id as usize]
    }

    pub(super) fn token_type(&self, id: usize) -> TokenType {
        let kind = self.types.get(id);
        let special = [self.bos, self.eos, self.unknown].contains(&u32::try_from(id).ok());
        if special && kind != Some(&UNUSED) {
            return TokenType::Control;
        }
        match kind {
            None | Some(1) => TokenType::Normal,
            Some(2 | 3) => TokenType::Control,
            Some(4) => TokenType::UserDefined,
            Some(_) => TokenType::Other,
        }
    }

    /// Spelling to id.
    pub(super) fn ids(&self) -> Vocab {
        self.tokens.iter().cloned().zip(0..).collect()
    }

    fn validate(&self) -> Result<(), String> {
        let count = self.tokens.len();
        if count == 0 || count > MAX_TOKENS {
            return Err(format!("tokenizer.ggml.tokens has {count} entries; 1 to {MAX_TOKENS} are possible"));
        }
        if !self.types.is_empty() && self.types.len() != count {
            let types = self.types.len();
            return Err(format!("tokenizer.ggml.token_type has {types} entries for {count} tokens"));
        }
        let ends = self.ends.iter().map(|id| ("eot", Some(*id)));
        for (key, id) in [("bos", self.bos), ("eos", self.eos), ("unknown", self.unknown)].into_iter().chain(ends) {
            if let Some(id) = id.filter(|id| *id as usize >= count) {
                return Err(format!("tokenizer.ggml.{key}_token_id is {id}, but there are {count} tokens"));
            }
        }
        Ok(())
    }

    /// The tokens that are looked for before merging. One written with SentencePiece's space is left to the
    /// merges: at this point the text still has plain spaces.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let added = |(id, spelling): (usize, &String)| {
            let special = match self.token_type(id) {
                TokenType::Control => true,
                TokenType::UserDefined if !spelling.contains(sentencepiece::SPACE) => false,
                _ => return None,
            };
            Some(AddedToken::from(spelling, special).normalized(false))
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }
}

/// A post-processor that puts one token before every text.
fn begin_with(id: u32, spelling: &str) -> Result<PostProcessorWrapper, String> {
    let bos = json!({"SpecialToken": {"id": spelling, "type_id": 0}});
    let text = |id| json!({"Sequence": {"id": id, "type_id": 0}});
    serde_json::from_value(json!({
        "type": "TemplateProcessing",
        "single": [bos, text("A")],
        "pair": [bos, text("A"), text("B")],
        "special_tokens": {spelling: {"id": spelling, "ids": [id], "tokens": [spelling]}},
    }))
    .map_err(|error| error.to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests panic on failure")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::text::{SpecialTokens, Text, tests::llama_vocabulary};

    fn refused(change: impl FnOnce(&mut GgufVocabulary), because: &str) {
        let mut vocabulary = llama_vocabulary(&["▁", "a", "▁a"]);
        change(&mut vocabulary);
        let error = Text::from_gguf(Path::new("bad.gguf"), vocabulary).unwrap_err().to_string();
        assert!(error.starts_with("bad.gguf: ") && error.contains(because), "{error}");
    }

    fn encode(vocabulary: GgufVocabulary, text: &str) -> Vec<String> {
        let tokens = vocabulary.tokens.clone();
        let ids = Text::from_gguf(Path::new("tiny.gguf"), vocabulary).unwrap().encode(text, SpecialTokens::Omit);
        ids.unwrap().into_iter().map(|id| tokens[id as usize].clone()).collect()
    }

    #[test]
    fn a_hostile_vocabulary_is_refused() {
        refused(|v| v.model = "bert".to_owned(), "tokenizer.ggml.model is `bert`");
        refused(|v| v.tokens.clear(), "tokenizer.ggml.tokens has 0");
        refused(|v| v.tokens = vec![String::new(); MAX_TOKENS + 1], "tokenizer.ggml.tokens has");
        refused(|v| v.types.truncate(5), "tokenizer.ggml.token_type has 5");
        refused(|v| v.scores.truncate(5), "tokenizer.ggml.scores has 5");
        refused(|v| v.eos = Some(262), "tokenizer.ggml.eos_token_id is 262");
        refused(|v| v.tokens[260] = "a".repeat(1 << 16), "too long");
        refused(|v| v.chat_template = Some("{% endif %}".to_owned()), "chat template");
    }

    #[test]
    fn odd_scores_and_spellings_do_no_harm() {
        let mut vocabulary = llama_vocabulary(&["▁", "", "é", "▁é", "<s", ">", "$A:1"]);
        vocabulary.scores[259..].fill(f32::NAN);
        vocabulary.bos = Some(265);
        let text = Text::from_gguf(Path::new("odd.gguf"), vocabulary).unwrap();
        assert_eq!(text.encode("é", SpecialTokens::Add).unwrap(), [265, 262]);
    }

    #[test]
    fn what_others_tolerate_is_loaded() {
        let mut vocabulary = llama_vocabulary(&["▁", "a", "", "a", "", "<s>", "▁a"]);
        vocabulary.types[264] = 3;
        let text = Text::from_gguf(Path::new("odd.gguf"), vocabulary.clone()).unwrap();
        assert_eq!(text.encode("a aa<s>", SpecialTokens::Add).unwrap(), [1, 265, 265, 260, 1]);
        let pieces: Vec<_> = (259..266).map(|id| text.piece(id).unwrap()).collect();
        assert_eq!(pieces, ["▁", "a", "", "a", "", "<s>", "▁a"]);
        assert_eq!(text.decode(&[260, 261, 262, 263, 264, 265]).unwrap(), "aa a");
        assert_eq!(text.vocab_size(), 266);

        // A special token may be one of them.
        (vocabulary.bos, vocabulary.unknown, vocabulary.eos) = (Some(264), None, None);
        let text = Text::from_gguf(Path::new("odd.gguf"), vocabulary.clone()).unwrap();
        assert_eq!(text.encode("a", SpecialTokens::Add).unwrap(), [264, 265]);
        assert_eq!(text.decode(&[264, 265]).unwrap(), "a");

        (vocabulary.bos, vocabulary.scores) = (None, Vec::new());
        let text = Text::from_gguf(Path::new("odd.gguf"), vocabulary).unwrap();
        assert_eq!(text.encode("a a", SpecialTokens::Add).unwrap(), [265, 265]);
    }

    #[test]
    fn what_ends_an_answer_is_a_control_token() {
        let mut vocabulary = llama_vocabulary(&["▁", "<|im_end|>", "[stop]", "a"]);
        vocabulary.ends = vec![261];
        for types in [vocabulary.types.clone(), Vec::new()] {
            let text = Text::from_gguf(Path::new("ends.gguf"), GgufVocabulary { types, ..vocabulary.clone() }).unwrap();
            assert_eq!((0..263).filter(|id| text.is_end(*id)).collect::<Vec<_>>(), [2, 260, 261]);
            assert_eq!(text.decode(&[262, 260, 261]).unwrap(), "a");
            assert_eq!(text.encode("a<|im_end|>", SpecialTokens::Omit).unwrap(), [259, 262, 260]);
        }
        refused(|v| v.ends = vec![262], "tokenizer.ggml.eot_token_id is 262");
    }

    #[test]
    fn the_best_score_merges_first() {
        let pieces = ["bc", "ab", "▁", "a", "b", "c"];
        assert_eq!(encode(llama_vocabulary(&pieces), "abc"), ["▁", "a", "bc"]);
        let pieces = ["ab", "bc", "▁", "a", "b", "c"];
        assert_eq!(encode(llama_vocabulary(&pieces), "abc"), ["▁", "ab", "c"]);
    }

    #[test]
    fn token_types_decide_what_is_found_before_merging() {
        let mut vocabulary = llama_vocabulary(&["▁", "a", "[INST]", "user!"]);
        (vocabulary.types[261], vocabulary.types[262]) = (3, 4);
        let ids = [259, 260, 261, 260, 262];
        assert_eq!(encode(vocabulary.clone(), "a[INST]auser!"), ids.map(|id| vocabulary.tokens[id].clone()));
        let text = Text::from_gguf(Path::new("tiny.gguf"), vocabulary).unwrap();
        assert_eq!(text.decode(&ids.map(|id| id as u32)).unwrap(), "aauser!");
        let first = |token: &str| GgufVocabulary { ..llama_vocabulary(&["▁", "a", token]) };
        assert_eq!(encode(first("x"), "a</s>a"), ["▁", "a", "</s>", "▁", "a"]);
        assert_eq!(encode(first("[INST]"), "a</s>a"), ["▁", "a", "</s>", "▁", "a"]);
    }

    #[test]
    fn without_byte_tokens_the_unknown_token_stands_in() {
        let mut vocabulary = llama_vocabulary(&["▁", "a"]);
        vocabulary.tokens.drain(3..259);
        vocabulary.scores.drain(3..259);
        vocabulary.types.drain(3..259);
        assert_eq!(encode(vocabulary, "aéé a"), ["▁", "a", "<unk>", "▁", "a"]);
    }

    fn gpt2(pre: &str) -> GgufVocabulary {
        let bytes = (0..=u8::MAX).map(|byte| byte_level::character(byte).to_string());
        let longer = ["12", "123", "Ġa", "Aa"].map(str::to_owned);
        GgufVocabulary {
            model: "gpt2".to_owned(),
            tokens: bytes.chain(longer).collect(),
            merges: ["1 2", "12 3", "Ġ a", "A a"].map(str::to_owned).to_vec(),
            pre: Some(pre.to_owned()),
            ..GgufVocabulary::default()
        }
    }

    #[test]
    fn the_pre_tokenizer_decides_where_merges_end() {
        assert_eq!(encode(gpt2("gpt-2"), "1234 a"), ["123", "4", "Ġa"]);
        assert_eq!(encode(gpt2("llama-bpe"), "1234 a"), ["123", "4", "Ġa"]);
        assert_eq!(encode(gpt2("tekken"), "123 a"), ["1", "2", "3", "Ġa"]);
        assert_eq!(encode(gpt2("tekken"), "aAa"), ["a", "Aa"]);
        let error = Text::from_gguf(Path::new("bad.gguf"), gpt2("other")).unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.pre"), "{error}");
        let merges = ["12", "", "x yz", "1 2", "3 4"].map(str::to_owned).to_vec();
        assert_eq!(encode(GgufVocabulary { merges, ..gpt2("tekken") }, "12"), ["1", "2"]);
        let merges = ["12", "", "x yz", "1 2", "3 4"].map(str::to_owned).to_vec();
        assert_eq!(encode(GgufVocabulary { merges, ..gpt2("gpt-2") }, "1234"), ["12", "3", "4"]);
    }
}
