//! `POST /generate`: what may be asked, and the shapes of the answer.

use std::fmt;

use engine::{Sampling, TokenLogprob, Usage};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{body::null_as_default, timings::Timings};
use crate::{
    error::{ApiError, ErrorCode},
    ledger::Asked,
};

/// Tokens to generate, unless asked for.
const MAX_TOKENS: u32 = 256;
/// The most stop strings, and the most bytes of one.
const STOP_LIMIT: usize = 16;
const STOP_BYTES: usize = 256;
/// The most alternatives reported per token.
const LOGPROBS_LIMIT: u8 = 20;

/// The body of `POST /generate`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateBody {
    /// The user's message, or with `raw` the text to continue.
    pub prompt: String,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    #[serde(default, deserialize_with = "null_as_default")]
    stop: Stop,
    seed: Option<u64>,
    /// Report logprobs, with so many alternatives.
    pub logprobs: Option<u8>,
    /// Go on past the model's end of sequence.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ignore_eos: bool,
    /// Do not put the prompt through the chat template.
    #[serde(default, deserialize_with = "null_as_default")]
    pub raw: bool,
    /// Answer with events.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream: bool,
    /// The model asked for; the one served unless given.
    pub model: Option<String>,
}

impl GenerateBody {
    /// Checks every range; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.prompt.is_empty() {
            return Err(ApiError::invalid("prompt", "must not be empty"));
        }
        if self.max_tokens() == 0 {
            return Err(ApiError::invalid("max_tokens", "must be at least 1"));
        }
        if self.logprobs.is_some_and(|n| n > LOGPROBS_LIMIT) {
            return Err(ApiError::invalid("logprobs", "must be between 0 and 20"));
        }
        self.stop.check()?;
        self.sampling().validate().map_err(|(field, must)| ApiError::invalid(field, must))
    }

    /// How tokens are to be drawn; without a seed, from a new random one each time.
    pub fn sampling(&self) -> Sampling {
        let usual = Sampling::default();
        Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            seed: self.seed.unwrap_or_else(random_seed),
        }
    }

    /// The most tokens to generate.
    pub fn max_tokens(&self) -> u32 {
        self.max_tokens.unwrap_or(MAX_TOKENS)
    }

    /// What the client itself asked for; the rest is what is usual.
    pub fn asked(&self) -> Asked {
        Asked {
            stream: self.stream,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
        }
    }

    /// The stop strings.
    pub fn stop(&self) -> Vec<String> {
        self.stop.0.clone()
    }
}

/// Both halves of a random UUID together: the fixed bits of one half fall on random bits of the other.
fn random_seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low
}

/// One stop string or a list of them.
#[derive(Debug, Clone, Default, PartialEq)]
struct Stop(Vec<String>);

impl Stop {
    fn check(&self) -> Result<(), ApiError> {
        if self.0.len() > STOP_LIMIT {
            return Err(ApiError::invalid("stop", "must have at most 16 entries"));
        }
        match self.0.iter().position(|text| text.is_empty() || text.len() > STOP_BYTES) {
            Some(at) => Err(ApiError::field(
                ErrorCode::InvalidValue,
                format!("stop[{at}]"),
                format!("stop[{at}] must have 1 to {STOP_BYTES} bytes"),
            )),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Stop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Stop, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    // One more than allowed is enough to be refused.
                    if texts.len() <= STOP_LIMIT {
                        texts.push(text);
                    }
                }
                Ok(Stop(texts))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The answer in one piece.
#[derive(Debug, Serialize)]
pub struct GenerateAnswer<'a> {
    /// `gen-…`.
    pub id: &'a str,
    /// The model that answered.
    pub model: &'a str,
    /// What it said.
    pub text: &'a str,
    /// Why it ended.
    pub finish_reason: &'static str,
    /// Tokens counted.
    pub usage: UsageBody,
    /// Where the time went.
    pub timings: &'a Timings,
    /// The trace of this request.
    pub trace_id: &'a str,
    /// Per token, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<&'a [TokenLogprobBody]>,
}

/// A streamed piece of the answer.
#[derive(Debug, Serialize)]
pub struct TextEvent<'a> {
    /// Number of the event, from 0.
    pub index: u32,
    /// Text that became final.
    pub text: &'a str,
    /// The tokens since the event before.
    pub token_ids: &'a [u32],
    /// Per token, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<&'a [TokenLogprobBody]>,
}

/// The last event of a streamed answer.
#[derive(Debug, Serialize)]
pub struct FinalEvent<'a> {
    /// `gen-…`.
    pub id: &'a str,
    /// The model that answered.
    pub model: &'a str,
    /// Why it ended.
    pub finish_reason: &'static str,
    /// Tokens counted.
    pub usage: UsageBody,
    /// Where the time went.
    pub timings: &'a Timings,
    /// The trace of this request.
    pub trace_id: &'a str,
}

/// Tokens counted over one request.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    cached_tokens: u32,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        }
    }
}

/// A token's logprob and the most likely alternatives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLogprobBody {
    #[serde(flatten)]
    chosen: Scored,
    top: Vec<Scored>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Scored {
    token: String,
    id: u32,
    logprob: f32,
}

impl TokenLogprobBody {
    /// With ids spelled by `piece`.
    pub fn new(id: u32, scored: &TokenLogprob, piece: impl Fn(u32) -> Option<String>) -> Self {
        let spell = |id, logprob| Scored { token: piece(id).unwrap_or_default(), id, logprob };
        Self {
            chosen: spell(id, scored.logprob),
            top: scored.top.iter().map(|&(id, logprob)| spell(id, logprob)).collect(),
        }
    }
}
