//! What holds: the configuration over OpenTelemetry's variables over defaults.
//!
//! Resource attributes and the sampler are read from their variables by the SDK itself, as is what concerns the
//! push of metrics.

use std::time::Duration;

use http::HeaderMap;

use super::{
    export::Limits,
    setup::TelemetryError,
    variables::{METRICS, TRACES, Variables},
};
use crate::config::{OtlpProtocol, TelemetryConfig};

/// Memory for spans, unless configured.
const QUEUE_BYTES: usize = 64 << 20;

/// What telemetry is set up with.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where spans go, if anywhere.
    pub(super) traces: Option<TraceTarget>,
    /// Where metrics are pushed, if anywhere.
    pub(super) metrics: Option<Target>,
    /// How spans queue.
    pub(super) limits: Limits,
}

/// Where one signal goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As the exporter takes it: for HTTP with the path.
    pub(super) url: String,
    /// How to speak to it.
    pub(super) protocol: OtlpProtocol,
}

/// Where spans go.
#[derive(Debug)]
pub(super) struct TraceTarget {
    pub(super) target: Target,
    /// What goes with each batch; often a secret.
    pub(super) headers: HeaderMap,
}

impl Settings {
    /// Puts `config` over the variables that `variable` reads.
    pub(super) fn new(
        config: &TelemetryConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, TelemetryError> {
        let variables = Variables::new(variable);
        let disabled = variables.is("OTEL_SDK_DISABLED", "true");
        let export_traces = !disabled && !variables.is("OTEL_TRACES_EXPORTER", "none");
        let push_metrics = !disabled && (config.push_metrics || variables.is("OTEL_METRICS_EXPORTER", "otlp"));
        let target = |signal, wanted| if wanted { variables.target(config, signal) } else { Ok(None) };
        let traces = match target(&TRACES, export_traces)? {
            Some(target) => {
                variables.refuse_compression(&TRACES)?;
                Some(TraceTarget { target, headers: variables.headers(&TRACES)? })
            }
            None => None,
        };
        Ok(Self { traces, metrics: target(&METRICS, push_metrics)?, limits: limits(config, &variables)? })
    }
}

fn limits<F: Fn(&str) -> Option<String>>(
    config: &TelemetryConfig,
    variables: &Variables<F>,
) -> Result<Limits, TelemetryError> {
    let milliseconds =
        |name, default| variables.number(name, default).map(|number| Duration::from_millis(number as u64));
    let or = |set: Option<usize>, name, default| set.map_or_else(|| variables.number(name, default), Ok);
    // Of usual spans, fewer than the memory holds: it is the bytes that bound.
    let queue = or(config.span_queue, "OTEL_BSP_MAX_QUEUE_SIZE", 1 << 18)?;
    let batch = or(config.span_batch, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1 << 13)?;
    let attempt = milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)?;
    Ok(Limits {
        queue: queue.min(1 << 20),
        queue_bytes: config.span_queue_bytes.map_or(QUEUE_BYTES, |bytes| bytes.0),
        batch: batch.min(queue),
        delay: milliseconds("OTEL_BSP_SCHEDULE_DELAY", 500)?,
        attempt_timeout: milliseconds("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", attempt.as_millis() as usize)?,
        export_timeout: milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 10_000)?,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    fn settings(config: &TelemetryConfig, variables: &[(&str, &str)]) -> Result<Settings, TelemetryError> {
        let read = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::new(config, read)
    }

    fn traces(variables: &[(&str, &str)]) -> Option<(String, OtlpProtocol)> {
        let target = settings(&TelemetryConfig::default(), variables).unwrap().traces;
        target.map(|traces| (traces.target.url, traces.target.protocol))
    }

    #[test]
    fn the_protocol_follows_the_port_unless_it_is_named() {
        let to = |url: &str, protocol| Some((url.to_owned(), protocol));
        assert_eq!(traces(&[]), None);
        assert_eq!(traces(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(
            traces(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]),
            to("http://c:4317", OtlpProtocol::Grpc)
        );
        assert_eq!(
            traces(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")]),
            to("http://c:4318/v1/traces", OtlpProtocol::HttpProtobuf)
        );
        assert_eq!(
            traces(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:9"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]),
            to("http://c:9", OtlpProtocol::Grpc)
        );
        assert_eq!(
            traces(&[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:9/x"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://d")
            ]),
            to("http://c:9/x", OtlpProtocol::HttpProtobuf)
        );
    }

    #[test]
    fn the_configuration_wins_over_variables() {
        let config = TelemetryConfig {
            otlp_endpoint: Some("http://ours:4317".to_owned()),
            span_queue: Some(10),
            span_queue_bytes: Some(ByteSize(4096)),
            ..TelemetryConfig::default()
        };
        let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://theirs"), ("OTEL_BSP_MAX_QUEUE_SIZE", "5")];
        let settings = settings(&config, &variables).unwrap();
        assert_eq!(settings.traces.unwrap().target.url, "http://ours:4317");
        let limits = settings.limits;
        assert_eq!((limits.queue, limits.queue_bytes, limits.batch), (10, 4096, 10));
    }

    #[test]
    fn exports_can_be_turned_off_and_metrics_on() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        assert_eq!(traces(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(traces(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), None);
        let pushed =
            |variables: &[(&str, &str)]| settings(&TelemetryConfig::default(), variables).unwrap().metrics.is_some();
        assert!(!pushed(&[endpoint]));
        assert!(pushed(&[endpoint, ("OTEL_METRICS_EXPORTER", "otlp")]));
    }

    #[test]
    fn a_variable_that_cannot_hold_is_refused_by_name() {
        let refused = |name: &'static str, value: &'static str| {
            let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)];
            settings(&TelemetryConfig::default(), &variables).unwrap_err().to_string()
        };
        assert_eq!(
            refused("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            "OTEL_EXPORTER_OTLP_PROTOCOL: `http/json` is neither `grpc` nor `http/protobuf`"
        );
        assert_eq!(
            refused("OTEL_BSP_SCHEDULE_DELAY", "0"),
            "OTEL_BSP_SCHEDULE_DELAY: `0` is not a whole number above 0"
        );
        assert_eq!(
            refused("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION: `gzip` is not supported, only `none` is"
        );
        assert_eq!(
            refused("OTEL_EXPORTER_OTLP_HEADERS", "authorization=one%0Atwo"),
            "OTEL_EXPORTER_OTLP_HEADERS: entry 1 is not `name=value` with a name and a value that a header may have"
        );
    }

    #[test]
    fn an_endpoint_that_cannot_be_is_refused_by_name() {
        let refused = |name: &'static str, url: &'static str, protocol: &'static str| {
            let variables = [(name, url), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
            settings(&TelemetryConfig::default(), &variables).unwrap_err().to_string()
        };
        assert_eq!(
            refused("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4317", "grpc"),
            "OTEL_EXPORTER_OTLP_ENDPOINT: gRPC over TLS is not supported, `http/protobuf` over TLS is"
        );
        assert_eq!(
            refused("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:4318", "http/protobuf"),
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `c:4318` is not an http or https URL"
        );
        let bare = [("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert!(settings(&TelemetryConfig::default(), &bare).is_err(), "TLS is meant where nothing is said");
        let insecure = [bare[0], bare[1], ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
        assert_eq!(traces(&insecure), Some(("http://c:4317".to_owned(), OtlpProtocol::Grpc)));
    }

    #[test]
    fn headers_and_time_outs_of_traces_win_over_those_of_all_signals() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let sent = |variables: &[(&str, &str)]| {
            let settings = settings(&TelemetryConfig::default(), &[&[endpoint], variables].concat()).unwrap();
            let headers = settings.traces.unwrap().headers;
            let mut headers: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            headers.sort();
            (headers.join(", "), settings.limits.attempt_timeout.as_millis())
        };
        let general = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20k=1, X-Scope = a ,");
        assert_eq!(sent(&[]), (String::new(), 10_000));
        assert_eq!(
            sent(&[general, ("OTEL_EXPORTER_OTLP_TIMEOUT", "300")]),
            ("authorization: Bearer k=1, x-scope: a".to_owned(), 300)
        );
        let own = [("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "200")];
        assert_eq!(sent(&[general, own[0], own[1]]), ("a: b".to_owned(), 200));
    }

    #[test]
    fn a_header_is_never_shown() {
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush")];
        let settings = settings(&TelemetryConfig::default(), &variables).unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
