//! The flags of `gateway`, each with its environment variable, and the tables they are laid over.

use std::{
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
};

use clap::Parser;
use serde::Serialize;

use super::{ByteSize, DeviceName, KvTypeName, LogFormat, OtlpProtocol, PolicyName, QuantizeName, Seconds};

/// Flags that set what the configuration file may also set; a flag not given leaves it alone.
#[derive(Debug, Clone, Default, Parser, Serialize)]
pub struct ServeFlags {
    /// TOML file with further settings.
    #[arg(long, env = "GATEWAY_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    limits: LimitsFlags,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    engine: EngineFlags,
    #[command(flatten)]
    auth: AuthFlags,
    #[command(flatten)]
    telemetry: TelemetryFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl ServeFlags {
    /// What was given, as the tables of the configuration file.
    pub(super) fn table(&self) -> Result<toml::Table, toml::ser::Error> {
        toml::Table::try_from(self)
    }
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Server")]
struct ServerFlags {
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long, env = "GATEWAY_HOST")]
    host: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 8000].
    #[arg(long, env = "GATEWAY_PORT")]
    port: Option<u16>,
    /// Connections open at once [default: 4096].
    #[arg(long, env = "GATEWAY_MAX_CONNECTIONS")]
    max_connections: Option<usize>,
    /// Time running requests get after a stop signal [default: 30s].
    #[arg(long, env = "GATEWAY_DRAIN_TIMEOUT")]
    drain_timeout: Option<Seconds>,
    /// Names that it may be asked under, besides this machine's own: on loopback without keys no others are answered
    /// to [default: none more].
    #[arg(long, env = "GATEWAY_ALLOWED_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    allowed_hosts: Option<Vec<String>>,
    /// Origins of web pages that may ask, such as https://a.example; * is any [default: none].
    #[arg(long, env = "GATEWAY_CORS_ORIGIN", value_name = "ORIGINS", value_delimiter = ',')]
    cors_origin: Option<Vec<String>>,
    /// Whether /debug/requests shows the ledgers of the last requests [default: on loopback only].
    #[arg(long, env = "GATEWAY_DEBUG_REQUESTS", value_name = "BOOL")]
    debug_requests: Option<bool>,
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Limits")]
struct LimitsFlags {
    /// Largest request body [default: 2MiB].
    #[arg(long, env = "GATEWAY_MAX_BODY_BYTES")]
    max_body_bytes: Option<ByteSize>,
    /// Time from a request's head to its last token [default: 5m].
    #[arg(long, env = "GATEWAY_REQUEST_TIMEOUT")]
    request_timeout: Option<Seconds>,
    /// Requests per minute and API key; more are refused with 429 [default: unlimited].
    #[arg(long, env = "GATEWAY_REQUESTS_PER_MINUTE", value_name = "REQUESTS")]
    requests_per_minute: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Model")]
struct ModelFlags {
    /// Model to serve: a known name, a Hugging Face folder or a .gguf file [default: demo].
    #[arg(long = "model", id = "model", env = "GATEWAY_MODEL", value_name = "NAME|PATH")]
    name: Option<String>,
    /// Where to compute [default: auto].
    #[arg(long, env = "GATEWAY_DEVICE")]
    device: Option<DeviceName>,
    /// Quantise the linear layers while loading.
    #[arg(long, env = "GATEWAY_QUANTIZE")]
    quantize: Option<QuantizeName>,
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Engine")]
struct EngineFlags {
    /// Sequences computed together in one step [default: 64].
    #[arg(long, env = "GATEWAY_MAX_BATCH")]
    max_batch: Option<usize>,
    /// Tokens computed in one step, of prompts and answers together [default: 128; 2048 on a GPU].
    #[arg(long, env = "GATEWAY_MAX_STEP_TOKENS")]
    max_step_tokens: Option<usize>,
    /// Requests that may wait; more are refused with 503 [default: 256].
    #[arg(long, env = "GATEWAY_MAX_QUEUE")]
    max_queue: Option<usize>,
    /// Whose prompt is computed next [default: fcfs].
    #[arg(long, env = "GATEWAY_POLICY")]
    policy: Option<PolicyName>,
    /// Whether prompts may begin with KV that earlier ones of the same caller left [default: true].
    #[arg(long, env = "GATEWAY_PREFIX_CACHE", value_name = "BOOL")]
    prefix_cache: Option<bool>,
    /// Tokens that an answer may be guessed to go on with from its own text, and verified at once [default: 0].
    #[arg(long = "speculative", env = "GATEWAY_SPECULATIVE", value_name = "TOKENS")]
    speculative_tokens: Option<usize>,
    /// Memory for the KV cache, such as 2GiB [default: half of what is free, if a full batch can use it; on a GPU what
    /// its share of the memory leaves].
    #[arg(long, env = "GATEWAY_KV_MEMORY")]
    kv_memory: Option<ByteSize>,
    /// Of a GPU's memory, the share that weights, KV cache and everything else may take together [default: 0.9].
    #[arg(long, env = "GATEWAY_GPU_MEMORY_UTILIZATION", value_name = "SHARE")]
    gpu_memory_utilization: Option<f32>,
    /// How keys and values are stored [default: f16].
    #[arg(long, env = "GATEWAY_KV_TYPE")]
    kv_type: Option<KvTypeName>,
    /// Tokens of prompt and answer together [default: the model's limit].
    #[arg(long, env = "GATEWAY_MAX_CONTEXT")]
    max_context: Option<usize>,
    /// Threads that compute [default: the cores there are].
    #[arg(long, env = "GATEWAY_THREADS")]
    threads: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Access")]
struct AuthFlags {
    /// File with one API key per line; without keys the API is open.
    #[arg(long = "api-keys-file", env = "GATEWAY_API_KEYS_FILE", value_name = "FILE")]
    keys_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Telemetry")]
struct TelemetryFlags {
    /// Base URL of an OTLP collector; without one nothing is exported.
    #[arg(long, env = "GATEWAY_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// OTLP transport [default: grpc for port 4317, else http/protobuf].
    #[arg(long, env = "GATEWAY_OTLP_PROTOCOL")]
    otlp_protocol: Option<OtlpProtocol>,
    /// Share of new traces recorded, 0 to 1 [default: 1].
    #[arg(long, env = "GATEWAY_SAMPLE_RATIO", value_name = "SHARE")]
    sample_ratio: Option<f64>,
    /// Engine steps per second that get a span; 0 is none [default: 10].
    #[arg(long, env = "GATEWAY_STEP_SPANS_PER_SECOND", value_name = "RATE")]
    step_spans_per_second: Option<f64>,
}

#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Logging")]
struct LogFlags {
    /// Log lines for people or for machines [default: text].
    #[arg(long = "log-format", id = "log_format", env = "GATEWAY_LOG_FORMAT")]
    format: Option<LogFormat>,
    /// Log levels by target, such as info,gateway=debug [default: info].
    #[arg(long = "log-filter", id = "log_filter", env = "GATEWAY_LOG", value_name = "LEVELS")]
    filter: Option<String>,
}
