//! Guesses how a text goes on: as it did the last time its last few tokens occurred (prompt lookup; Saxena 2023,
//! <https://github.com/apoorvumang/prompt-lookup-decoding>).

/// Tokens at the end that must have occurred before, the longer match first.
const MATCHES: [usize; 2] = [3, 2];

/// Up to `most` tokens that may come next; none if the text repeats nothing.
pub(super) fn guess(tokens: &[u32], most: usize) -> Vec<u32> {
    if most == 0 {
        return Vec::new();
    }
    let Some(next) = MATCHES.into_iter().find_map(|length| after_latest(tokens, length)) else { return Vec::new() };
    let mut guess: Vec<u32> = tokens[next..].iter().copied().take(most).collect();
    // Where the text repeats itself at its very end, so does the guess.
    let period = tokens.len() - next;
    for index in guess.len()..most {
        guess.push(guess[index - period]);
    }
    guess
}

/// What follows the latest earlier occurrence of the last `length` tokens begins there.
fn after_latest(tokens: &[u32], length: usize) -> Option<usize> {
    let earlier = tokens.len().checked_sub(length)?;
    let (end, last) = (&tokens[earlier..], *tokens.last()?);
    // The last token is compared first: most places differ in it.
    let ends = (length..tokens.len()).rev().filter(|&end| tokens[end - 1] == last);
    ends.into_iter().find(|&at| tokens[at - length..at] == *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_longest_match_goes_on() {
        for (tokens, most, expected) in [
            (vec![1, 2, 3, 4, 5, 1, 2, 3], 2, vec![4, 5]),
            (vec![1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3], 3, vec![9, 1, 2]),
            (vec![7, 1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1, vec![4]),
            (vec![1, 2, 8, 3, 1, 2], 4, vec![8, 3, 1, 2]),
            (vec![5, 6, 5, 6, 5, 6], 5, vec![5, 6, 5, 6, 5]),
            (vec![4, 4, 4], 3, vec![4, 4, 4]),
            (vec![1, 2, 3, 4], 5, vec![]),
            (vec![1, 2, 1], 5, vec![]),
            (vec![1, 2, 1, 2], 0, vec![]),
            (vec![3], 5, vec![]),
            (vec![], 5, vec![]),
        ] {
            assert_eq!(guess(&tokens, most), expected, "{tokens:?}");
        }
    }
}
