//! Where traces and metrics go.
//!
//! What is not set here is taken from OpenTelemetry's own `OTEL_*` variables, and else from its defaults or ours.

use serde::{Deserialize, Serialize};

use super::{ByteSize, Violation, within};

/// The `[telemetry]` table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// `service.name` of everything sent; else `OTEL_SERVICE_NAME`, else `llm-inference-api`.
    pub service_name: Option<String>,
    /// The collector's base URL (HTTP adds `/v1/traces`); else `OTEL_EXPORTER_OTLP_ENDPOINT`. Nothing is sent
    /// without one.
    pub otlp_endpoint: Option<String>,
    /// How to speak to it; else `OTEL_EXPORTER_OTLP_PROTOCOL`, else gRPC for port 4317 and HTTP for others.
    pub otlp_protocol: Option<OtlpProtocol>,
    /// Whether metrics are pushed to the collector too; they are served at `/metrics` always.
    pub push_metrics: bool,
    /// The share of new traces that is recorded, a caller's decision wins; else `OTEL_TRACES_SAMPLER`, else all.
    pub sample_ratio: Option<f64>,
    /// Engine steps per second that get a span of their own, 0 is none; else 10.
    pub step_spans_per_second: Option<f64>,
    /// Entries of callers' baggage that become attributes of the operation's span, by key, such as `session.id`.
    pub baggage_attributes: Vec<String>,
    /// Whether prompts and answers may enter spans.
    pub capture_content: bool,
    /// Regular expressions: what they match in a captured prompt or answer is replaced by `[redacted]`.
    pub redact: Vec<String>,
    /// The most bytes kept of a captured prompt or answer, after redaction; else 16 KiB.
    pub content_limit: Option<ByteSize>,
    /// Spans that may wait for a slow collector or be on their way to it, more are dropped and counted; else 262,144.
    pub span_queue: Option<usize>,
    /// The memory that they may take; else 64 MiB.
    pub span_queue_bytes: Option<ByteSize>,
    /// The most spans sent together; else 8,192.
    pub span_batch: Option<usize>,
}

/// OTLP's transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum OtlpProtocol {
    /// gRPC, usually port 4317.
    #[serde(rename = "grpc")]
    #[value(name = "grpc")]
    Grpc,
    /// Protobuf over HTTP, usually port 4318.
    #[serde(rename = "http/protobuf")]
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.service_name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            return Err(("telemetry.service_name", "is empty".to_owned()));
        }
        if let Some(endpoint) = &self.otlp_endpoint {
            let refuse = |why: String| ("telemetry.otlp_endpoint", format!("`{endpoint}` {why}"));
            let url = url::Url::parse(endpoint).map_err(|error| refuse(format!("is not a URL: {error}")))?;
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return Err(refuse("is not an http or https URL".to_owned()));
            }
        }
        if let Some(ratio) = self.sample_ratio {
            within("telemetry.sample_ratio", ratio, 0.0..=1.0)?;
        }
        within("telemetry.baggage_attributes", self.baggage_attributes.len(), 0..=16)?;
        if self.baggage_attributes.iter().any(|key| !key.bytes().all(|byte| byte.is_ascii_graphic()) || key.is_empty())
        {
            return Err(("telemetry.baggage_attributes", "holds what can be no key of baggage".to_owned()));
        }
        within("telemetry.redact", self.redact.len(), 0..=64)?;
        for pattern in &self.redact {
            regex::Regex::new(pattern).map_err(|error| ("telemetry.redact", error.to_string()))?;
        }
        if let Some(limit) = self.content_limit {
            within("telemetry.content_limit", limit, ByteSize(1)..=ByteSize(1 << 20))?;
        }
        if let Some(rate) = self.step_spans_per_second {
            within("telemetry.step_spans_per_second", rate, 0.0..=1e6)?;
        }
        if let Some(spans) = self.span_queue {
            within("telemetry.span_queue", spans, 1..=1 << 20)?;
        }
        if let Some(bytes) = self.span_queue_bytes {
            within("telemetry.span_queue_bytes", bytes.0, 1 << 10..=1 << 40)?;
        }
        if let Some(spans) = self.span_batch {
            within("telemetry.span_batch", spans, 1..=1 << 20)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_refused_by_key() {
        let base = TelemetryConfig::default;
        let refused = |config: TelemetryConfig| config.check().map_err(|(key, _)| key);
        assert_eq!(refused(base()), Ok(()));
        assert_eq!(
            refused(TelemetryConfig { otlp_endpoint: Some("localhost:4317".to_owned()), ..base() }),
            Err("telemetry.otlp_endpoint")
        );
        assert_eq!(
            refused(TelemetryConfig { span_queue_bytes: Some(ByteSize(1)), ..base() }),
            Err("telemetry.span_queue_bytes")
        );
        assert_eq!(refused(TelemetryConfig { sample_ratio: Some(1.5), ..base() }), Err("telemetry.sample_ratio"));
        assert_eq!(refused(TelemetryConfig { redact: vec!["(".to_owned()], ..base() }), Err("telemetry.redact"));
        let keys = vec!["session id".to_owned()];
        assert_eq!(
            refused(TelemetryConfig { baggage_attributes: keys, ..base() }),
            Err("telemetry.baggage_attributes")
        );
        let none = Some(ByteSize(0));
        assert_eq!(refused(TelemetryConfig { content_limit: none, ..base() }), Err("telemetry.content_limit"));
        assert_eq!(
            refused(TelemetryConfig { step_spans_per_second: Some(-1.0), ..base() }),
            Err("telemetry.step_spans_per_second")
        );
        assert_eq!(refused(TelemetryConfig { span_queue: Some(0), ..base() }), Err("telemetry.span_queue"));
    }
}
