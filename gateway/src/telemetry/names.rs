//! Names of attributes, events and metrics, as the semantic conventions (or we) have them.
//!
//! The `gen_ai.*` conventions are in development and their names still move; here is the one place to follow.

pub(super) const HTTP_METHOD: &str = "http.request.method";
pub(super) const HTTP_ROUTE: &str = "http.route";
pub(super) const HTTP_STATUS: &str = "http.response.status_code";
pub(super) const URL_PATH: &str = "url.path";
pub(super) const URL_SCHEME: &str = "url.scheme";
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const ERROR_MESSAGE: &str = "error.message";

pub(super) const OPERATION: &str = "gen_ai.operation.name";
pub(super) const PROVIDER: &str = "gen_ai.provider.name";
pub(super) const REQUEST_MODEL: &str = "gen_ai.request.model";
pub(super) const REQUEST_STREAM: &str = "gen_ai.request.stream";
pub(super) const REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
pub(super) const REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
pub(super) const REQUEST_TOP_P: &str = "gen_ai.request.top_p";
pub(super) const REQUEST_TOP_K: &str = "gen_ai.request.top_k";
pub(super) const REQUEST_SEED: &str = "gen_ai.request.seed";
pub(super) const REQUEST_PRESENCE_PENALTY: &str = "gen_ai.request.presence_penalty";
pub(super) const REQUEST_FREQUENCY_PENALTY: &str = "gen_ai.request.frequency_penalty";
pub(super) const RESPONSE_ID: &str = "gen_ai.response.id";
pub(super) const RESPONSE_MODEL: &str = "gen_ai.response.model";
pub(super) const RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
pub(super) const RESPONSE_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
pub(super) const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub(super) const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub(super) const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
pub(super) const INPUT_MESSAGES: &str = "gen_ai.input.messages";
pub(super) const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";

pub(super) const REQUEST_ID: &str = "gateway.request_id";
pub(super) const OUTCOME: &str = "gateway.outcome";
pub(super) const QUEUE_DEPTH: &str = "gateway.queue_depth";
pub(super) const STEPS: &str = "gateway.steps";
pub(super) const TPOT_MS: &str = "gateway.tpot_ms";
pub(super) const STALL_MS: &str = "gateway.stall_ms";
pub(super) const PREEMPTED_MS: &str = "gateway.preempted_ms";
pub(super) const INTERFERENCE_MS: &str = "gateway.interference_ms";
pub(super) const BYTES_SENT: &str = "gateway.bytes_sent";
pub(super) const DURATION_MS: &str = "gateway.duration_ms";
pub(super) const TOKENS_PER_SECOND: &str = "gateway.tokens_per_second";
pub(super) const SEED: &str = "gateway.seed";
// What a phase has of the usage: `gen_ai.*` stands on the operation's span alone, since trace viewers take each span
// that has any for a call of a model, and add up what all of them count.
pub(super) const PROMPT_TOKENS: &str = "gateway.prompt_tokens";
pub(super) const PREFIX_TOKENS: &str = "gateway.cached_tokens";
pub(super) const COMPLETION_TOKENS: &str = "gateway.completion_tokens";

pub(super) const MEAN_BATCH: &str = "gateway.mean_batch";
pub(super) const MEAN_KV_USE: &str = "gateway.mean_kv_use";
pub(super) const MORE_INTERRUPTIONS: &str = "gateway.more_interruptions";
pub(super) const BLOCKED_BY: &str = "gateway.blocked_by";
pub(super) const BLOCKED_BATCH_MS: &str = "gateway.blocked.batch_ms";
pub(super) const BLOCKED_KV_MS: &str = "gateway.blocked.kv_ms";
pub(super) const BLOCKED_STEP_BUDGET_MS: &str = "gateway.blocked.step_budget_ms";
pub(super) const BLOCKED_FAIRNESS_MS: &str = "gateway.blocked.fairness_ms";

pub(super) const PREEMPTED: &str = "preempted";
pub(super) const STALLED: &str = "stalled";
pub(super) const RESUMED: &str = "resumed";
pub(super) const FIRST_TOKEN: &str = "first_token";

pub(super) const STEP: &str = "engine.step";
pub(super) const STEP_NUMBER: &str = "engine.step.number";
pub(super) const STEP_BATCH_SIZE: &str = "engine.step.batch_size";
pub(super) const STEP_PREFILL_TOKENS: &str = "engine.step.prefill_tokens";
pub(super) const STEP_DECODE_TOKENS: &str = "engine.step.decode_tokens";
pub(super) const STEP_PLAN_MS: &str = "engine.step.plan_ms";
pub(super) const STEP_FORWARD_MS: &str = "engine.step.forward_ms";
pub(super) const STEP_DEVICE_MS: &str = "engine.step.device_ms";
pub(super) const STEP_SAMPLE_MS: &str = "engine.step.sample_ms";
pub(super) const STEP_SEND_MS: &str = "engine.step.send_ms";
pub(super) const KV_USAGE: &str = "engine.kv.usage";
pub(super) const MEMORY_BANDWIDTH_UTILIZATION: &str = "engine.memory_bandwidth.utilization";
pub(super) const COMPUTE_UTILIZATION: &str = "engine.compute.utilization";

/// The provider of what the gateway computes itself.
pub(super) const LOCAL_PROVIDER: &str = "local";

/// `error.type` of a request whose client left.
pub(super) const CLIENT_DISCONNECTED: &str = "client_disconnected";
