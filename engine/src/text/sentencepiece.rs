//! SentencePiece BPE as a `tokenizers` BPE: the merges, which GGUF does not store, follow from the scores.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap};

use tokenizers::{
    DecoderWrapper, NormalizerWrapper, Tokenizer,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::{BPE, Merges},
    normalizers::{Prepend, Replace, Sequence as Normalizers},
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
};

use super::gguf::{GgufVocabulary, TokenType};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "▁";

/// Bound on the bytes hashed while looking for merges; real vocabularies need a hundredth.
const MAX_MERGE_WORK: usize = 1 << 30;

/// The tokenizer of a `llama` vocabulary, still without its added tokens.
pub(super) fn tokenizer(vocabulary: &GgufVocabulary) -> Result<Tokenizer, String> {
    let mut bpe =
        BPE::builder().vocab_and_merges(vocabulary.ids(), merges(vocabulary)?).fuse_unk(true).byte_fallback(true);
    if let Some(unknown) = vocabulary.unknown {
        bpe = bpe.unk_token(vocabulary.spelling(unknown).to_owned());
    }
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(|error| error.to_string())?);

    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![replace(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if vocabulary.add_space_prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    if vocabulary.add_space_prefix && prefixes_once(vocabulary) {
        tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::First, false)));
    } else {
        if vocabulary.add_space_prefix {
            normalizers.push(Prepend::new(SPACE.to_owned()).into());
        }
        normalizers.push(replace(" ", SPACE)?.into());
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));
    }
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

/// Whether the prefix stands at the text's start alone, not behind each control token as well. The file does
/// not say; `transformers` has it so for Mistral's tokenizers from the second version on, where `[INST]`, plain
/// text in the first, is a control token.
fn prefixes_once(vocabulary: &GgufVocabulary) -> bool {
    let instruction = vocabulary.tokens.iter().position(|token| token == "[INST]");
    instruction.is_some_and(|id| matches!(vocabulary.token_type(id), TokenType::Control | TokenType::UserDefined))
}

fn replace(from: &str, to: &str) -> Result<Replace, String> {
    Replace::new(from, to).map_err(|error| error.to_string())
}

/// Every way to make a token of two others, the best score first.
///
/// SentencePiece merges the adjacent pair whose union scores highest; ties are broken as in `transformers`'
/// conversion: the longer left part, the longer right part, the lower ids.
fn merges(vocabulary: &GgufVocabulary) -> Result<Merges, String> {
    let tokens = &vocabulary.tokens;
    let scores = match vocabulary.scores.len() {
        0 => {
            tracing::warn!("tokenizer.ggml.scores is missing: longer tokens are merged first");
            Cow::Owned(vec![0.0; tokens.len()])
        }
        _ => Cow::Borrowed(&vocabulary.scores),
    };
    if scores.len() != tokens.len() {
        return Err(format!("tokenizer.ggml.scores has {} entries for {} tokens", scores.len(), tokens.len()));
    }
    let pieces: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| matches!(vocabulary.token_type(*id), TokenType::Normal | TokenType::UserDefined))
        .map(|(id, token)| (token.as_str(), id))
        .collect();
    let work = pieces.keys().fold(0_usize, |work, token| work.saturating_add(token.len().saturating_pow(2)));
    if work > MAX_MERGE_WORK {
        return Err("tokenizer.ggml.tokens has tokens too long to be a vocabulary".to_owned());
    }

    let mut found = Vec::new();
    for (&token, &id) in &pieces {
        let length = token.chars().count();
        for (before, (middle, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(middle);
            if let (Some(&left), Some(&right)) = (pieces.get(left), pieces.get(right)) {
                let ties = (Reverse(before), Reverse(length - before), id, left, right);
                found.push((scores[id], ties));
            }
        }
    }
    found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(found.into_iter().map(|(_, (.., left, right))| (tokens[left].clone(), tokens[right].clone())).collect())
}
