//! Tokens that end an answer by what they are called.
//!
//! Files often name one end token where the model uses several, so llama.cpp also goes by spellings. These
//! are its, with its two exceptions: where another token ends the turn, one of these is only punctuation.

/// Ends of a sequence, a turn or a message.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// What stands between files and repositories, and padding: nothing of an answer follows these either.
const SEPARATORS: [&str; 11] = [
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// The ids among `given` and by name that end an answer, sorted; `id` says which a spelling has.
pub(super) fn find(given: impl IntoIterator<Item = u32>, id: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
    let named = ENDS.iter().chain(&SEPARATORS).filter_map(|name| id(name));
    let mut ends: Vec<u32> = named.chain(given).collect();
    let ends_with = |name: &str| id(name).is_some_and(|id| ends.contains(&id));
    let calls = ends_with("<|call|>") || ends_with("<|calls|>");
    let harmony = calls && (ends_with("<|return|>") || ends_with("<|flush|>"));
    let tool_response = ends_with("<|tool_response>");
    let exceptions = [("<|end|>", harmony), ("</s>", tool_response)];
    for (name, _) in exceptions.into_iter().filter(|(_, holds)| *holds) {
        let exception = id(name);
        ends.retain(|end| Some(*end) != exception);
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(given: &[u32], tokens: &[&str]) -> Vec<u32> {
        let id = |name: &str| tokens.iter().position(|token| *token == name).map(|id| id as u32);
        find(given.iter().copied(), id)
    }

    #[test]
    fn names_end_an_answer_beside_what_the_file_gives() {
        assert_eq!(found(&[2], &["<s>", "<|im_end|>", "x", "<|im_start|>"]), [1, 2]);
        assert_eq!(found(&[1, 1], &["a", "</s>", "[PAD]"]), [1, 2]);
        assert_eq!(found(&[], &["a", "eot_id", "<|EOT_ID|>"]), [0_u32; 0]);
        for name in ENDS.iter().chain(&SEPARATORS) {
            assert_eq!(found(&[], &["a", name]), [1]);
        }
    }

    #[test]
    fn where_others_end_a_turn_two_names_do_not() {
        assert_eq!(found(&[], &["<|end|>", "<|return|>"]), [0, 1]);
        assert_eq!(found(&[0], &["<|end|>", "<|return|>", "<|call|>"]), [1, 2]);
        assert_eq!(found(&[], &["<|end|>", "<|flush|>", "<|calls|>"]), [1, 2]);
        assert_eq!(found(&[], &["</s>", "<|tool_response>"]), [1]);
    }
}
