//! What holds: the configuration over OpenTelemetry's variables over defaults.
//!
//! Headers, time-outs, resource attributes and the sampler are read from their variables by the SDK itself.

use std::time::Duration;

use super::{export::Limits, setup::TelemetryError};
use crate::config::{OtlpProtocol, TelemetryConfig};

/// What telemetry is set up with.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where spans go, if anywhere.
    pub(super) traces: Option<Target>,
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

impl Settings {
    /// Puts `config` over the variables that `variable` reads.
    pub(super) fn new(
        config: &TelemetryConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, TelemetryError> {
        // An empty variable counts as unset.
        let environment = Environment { read: move |name: &str| variable(name).filter(|value| !value.is_empty()) };
        let disabled = environment.is("OTEL_SDK_DISABLED", "true");
        let export_traces = !disabled && !environment.is("OTEL_TRACES_EXPORTER", "none");
        let push_metrics = !disabled && (config.push_metrics || environment.is("OTEL_METRICS_EXPORTER", "otlp"));
        let queue = environment.number("OTEL_BSP_MAX_QUEUE_SIZE", config.span_queue, 65_536)?;
        let batch = environment.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", config.span_batch, 8_192)?;
        Ok(Self {
            traces: environment.target(config, &TRACES).transpose()?.filter(|_| export_traces),
            metrics: environment.target(config, &METRICS).transpose()?.filter(|_| push_metrics),
            limits: Limits {
                queue: queue.min(1 << 20),
                batch: batch.min(queue),
                delay: Duration::from_millis(environment.number("OTEL_BSP_SCHEDULE_DELAY", None, 500)? as u64),
                export_timeout: Duration::from_millis(
                    environment.number("OTEL_BSP_EXPORT_TIMEOUT", None, 10_000)? as u64
                ),
            },
        })
    }
}

/// What is named differently for each signal.
struct Signal {
    endpoint: &'static str,
    protocol: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    path: "/v1/traces",
};

const METRICS: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    path: "/v1/metrics",
};

struct Environment<F> {
    read: F,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn is(&self, name: &str, value: &str) -> bool {
        (self.read)(name).is_some_and(|set| set.eq_ignore_ascii_case(value))
    }

    fn number(&self, name: &'static str, set: Option<usize>, default: usize) -> Result<usize, TelemetryError> {
        match (set, (self.read)(name)) {
            (Some(number), _) => Ok(number),
            (None, None) => Ok(default),
            (None, Some(text)) => text
                .trim()
                .parse()
                .ok()
                .filter(|&number| number > 0)
                .ok_or(TelemetryError::Variable { name, reason: format!("`{text}` is not a whole number above 0") }),
        }
    }

    fn target(&self, config: &TelemetryConfig, signal: &Signal) -> Option<Result<Target, TelemetryError>> {
        let own = (self.read)(signal.endpoint).filter(|_| config.otlp_endpoint.is_none());
        let base = config.otlp_endpoint.clone().or_else(|| (self.read)("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let url = own.clone().or(base)?;
        let protocol = match self.protocol(config, signal) {
            Ok(Some(protocol)) => protocol,
            Ok(None) if url::Url::parse(&url).is_ok_and(|url| url.port() == Some(4317)) => OtlpProtocol::Grpc,
            Ok(None) => OtlpProtocol::HttpProtobuf,
            Err(error) => return Some(Err(error)),
        };
        let is_base = own.is_none() && protocol == OtlpProtocol::HttpProtobuf;
        let url = if is_base { format!("{}{}", url.trim_end_matches('/'), signal.path) } else { url };
        Some(Ok(Target { url, protocol }))
    }

    fn protocol(&self, config: &TelemetryConfig, signal: &Signal) -> Result<Option<OtlpProtocol>, TelemetryError> {
        if config.otlp_protocol.is_some() {
            return Ok(config.otlp_protocol);
        }
        for name in [signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match (self.read)(name).as_deref() {
                None => {}
                Some("grpc") => return Ok(Some(OtlpProtocol::Grpc)),
                Some("http/protobuf") => return Ok(Some(OtlpProtocol::HttpProtobuf)),
                Some(other) => {
                    let reason = format!("`{other}` is neither `grpc` nor `http/protobuf`");
                    return Err(TelemetryError::Variable { name, reason });
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn settings(config: &TelemetryConfig, variables: &[(&str, &str)]) -> Result<Settings, TelemetryError> {
        let read = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::new(config, read)
    }

    fn traces(variables: &[(&str, &str)]) -> Option<(String, OtlpProtocol)> {
        let target = settings(&TelemetryConfig::default(), variables).unwrap().traces;
        target.map(|target| (target.url, target.protocol))
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
            ..TelemetryConfig::default()
        };
        let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://theirs"), ("OTEL_BSP_MAX_QUEUE_SIZE", "5")];
        let settings = settings(&config, &variables).unwrap();
        assert_eq!(settings.traces.unwrap().url, "http://ours:4317");
        assert_eq!((settings.limits.queue, settings.limits.batch), (10, 10));
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
    }
}
