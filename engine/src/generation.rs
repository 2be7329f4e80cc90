//! What a caller asks of the engine and what comes back.
//!
//! The engine stamps instants and counts; what they mean to a reader (phases, spans, milliseconds) is
//! decided outside. Ranges are the caller's to check with [`Sampling::validate`]; the engine clamps nothing.

use std::time::Instant;

/// One prompt to continue.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// Token ids, with whatever special tokens the model expects; never empty.
    pub prompt: Vec<u32>,
    /// The most tokens to generate; at least 1.
    pub max_tokens: u32,
    /// How a token is drawn from the logits.
    pub sampling: Sampling,
    /// Texts that end the generation; they are not part of the answer.
    pub stop: Vec<String>,
    /// Whether to go on past the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Report each token's logprob and that many of the most likely ones.
    pub logprobs: Option<u8>,
    /// Only requests with the same salt share cached prompts: one per tenant.
    pub cache_salt: u64,
    /// The instant after which the generation ends with [`FinishReason::Deadline`].
    pub deadline: Option<Instant>,
    /// The caller's name for it, by which a [`StepObserver`](crate::StepObserver) is told of it; 0 is no name.
    pub tag: u64,
}

/// How a token is drawn: penalties first, then temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; up to 2.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this; in (0, 1].
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely; in [0, 1].
    pub min_p: f32,
    /// Divides (or multiplies, if negative) the logit of every token seen; in (0, 2]; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from tokens already generated; in [-2, 2].
    pub presence_penalty: f32,
    /// Subtracted per occurrence from tokens already generated; in [-2, 2].
    pub frequency_penalty: f32,
    /// The same request with the same seed gives the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks every field's range; the error is the field's name and what it must be.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let within = |value: f32, low: f32, high: f32| value.is_finite() && value >= low && value <= high;
        if !within(self.temperature, 0.0, 2.0) {
            return Err(("temperature", "must be between 0 and 2"));
        }
        if !(within(self.top_p, 0.0, 1.0) && self.top_p > 0.0) {
            return Err(("top_p", "must be greater than 0 and at most 1"));
        }
        if !within(self.min_p, 0.0, 1.0) {
            return Err(("min_p", "must be between 0 and 1"));
        }
        if !(within(self.repetition_penalty, 0.0, 2.0) && self.repetition_penalty > 0.0) {
            return Err(("repetition_penalty", "must be greater than 0 and at most 2"));
        }
        if !within(self.presence_penalty, -2.0, 2.0) {
            return Err(("presence_penalty", "must be between -2 and 2"));
        }
        if !within(self.frequency_penalty, -2.0, 2.0) {
            return Err(("frequency_penalty", "must be between -2 and 2"));
        }
        Ok(())
    }
}

/// What arrives on a generation's stream: tokens, then exactly one `Finished` or `Failed`.
#[derive(Debug, Clone)]
pub enum Event {
    /// One more token.
    Token(Token),
    /// The end, with what the detokenizer still held.
    Finished(Finished),
    /// The engine could not go on with this request.
    Failed(Failure),
}

/// One sampled token.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became final with it: may be empty (half a character, or the possible beginning of a
    /// stop string) and may hold what earlier tokens held back.
    pub text: String,
    /// Its logprob and the most likely alternatives, if asked for.
    pub logprob: Option<TokenLogprob>,
    /// When it was sampled.
    pub sampled_at: Instant,
}

/// A token's natural-log probability under the model, before penalties and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The sampled token's.
    pub logprob: f32,
    /// The most likely ids with theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// How a generation ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// Text held back until the end was known.
    pub text: String,
    /// What was counted.
    pub usage: Usage,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The request's deadline passed.
    Deadline,
}

impl FinishReason {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Deadline => "deadline",
        }
    }
}

/// Tokens counted over one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, the end-of-sequence token included.
    pub completion_tokens: u32,
    /// Prompt tokens whose KV was found in the prefix cache.
    pub cached_tokens: u32,
}

/// A failure of the engine itself, not of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub message: String,
}
