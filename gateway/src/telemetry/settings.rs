//! What holds: the configuration over OpenTelemetry's variables over defaults.
//!
//! Resource attributes and the sampler, and what concerns metrics besides where they go, are read from their
//! variables by the SDK itself.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{export::Limits, setup::TelemetryError};
use crate::config::{OtlpProtocol, TelemetryConfig};

/// What telemetry is set up with.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where spans go, if anywhere.
    pub(super) traces: Option<Traces>,
    /// Where metrics are pushed, if anywhere.
    pub(super) metrics: Option<Target>,
    /// How spans queue.
    pub(super) limits: Limits,
}

/// How spans go to a collector.
#[derive(Debug)]
pub(super) struct Traces {
    pub(super) target: Target,
    /// Sent with each export.
    pub(super) headers: HeaderMap,
    /// How long one try may take; an export is tried again until its own time-out.
    pub(super) try_timeout: Duration,
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
            traces: environment.traces(config).transpose()?.filter(|_| export_traces),
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

    fn traces(&self, config: &TelemetryConfig) -> Option<Result<Traces, TelemetryError>> {
        let target = self.target(config, &TRACES)?;
        let traces = |target: Target| {
            self.check_compression()?;
            Ok(Traces { target, headers: self.headers()?, try_timeout: self.try_timeout()? })
        };
        Some(target.and_then(traces))
    }

    /// The first of two variables that is set: the one for traces, the one for all signals.
    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, (self.read)(name)?)))
    }

    fn try_timeout(&self) -> Result<Duration, TelemetryError> {
        let set = self.first(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]);
        let millis = self.number(set.map_or("OTEL_EXPORTER_OTLP_TIMEOUT", |(name, _)| name), None, 10_000)?;
        Ok(Duration::from_millis(millis as u64))
    }

    fn check_compression(&self) -> Result<(), TelemetryError> {
        match self.first(["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"]) {
            Some((name, set)) if set != "none" => {
                Err(TelemetryError::Variable { name, reason: format!("`{set}`: spans are sent uncompressed only") })
            }
            _ => Ok(()),
        }
    }

    /// `name=value` pairs with commas between them, values percent-encoded. Values are secrets: errors leave
    /// them out.
    fn headers(&self) -> Result<HeaderMap, TelemetryError> {
        let set = self.first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]);
        let Some((variable, set)) = set else { return Ok(HeaderMap::new()) };
        let pairs = set.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let header = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            // A plus sign is one: only percent signs are special here.
            let value = value.trim().replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
            let (value, _) = url::form_urlencoded::parse(value.as_bytes()).next().unwrap_or_default();
            Some((HeaderName::try_from(name.trim()).ok()?, HeaderValue::try_from(value.as_ref()).ok()?))
        };
        pairs
            .map(|pair| {
                let reason = || "is not a list of name=value pairs with commas between them".to_owned();
                header(pair).ok_or_else(|| TelemetryError::Variable { name: variable, reason: reason() })
            })
            .collect()
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
            ..TelemetryConfig::default()
        };
        let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://theirs"), ("OTEL_BSP_MAX_QUEUE_SIZE", "5")];
        let settings = settings(&config, &variables).unwrap();
        assert_eq!(settings.traces.unwrap().target.url, "http://ours:4317");
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
    fn headers_and_time_outs_for_traces_win_over_those_for_all() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        let all = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b+c==, x-tenant = t");
        let traces = |variables: &[(&str, &str)]| settings(&TelemetryConfig::default(), variables).unwrap().traces;
        let sent = traces(&[endpoint, all, ("OTEL_EXPORTER_OTLP_TIMEOUT", "250")]).unwrap();
        assert_eq!(
            (&sent.headers["api-key"], &sent.headers["x-tenant"]),
            (&"a b+c==".parse().unwrap(), &"t".parse().unwrap())
        );
        assert_eq!(sent.try_timeout, Duration::from_millis(250));
        let own = [("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=own"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "9")];
        let sent = traces(&[endpoint, all, ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"), own[0], own[1]]).unwrap();
        assert_eq!((sent.headers.len(), &sent.headers["api-key"]), (1, &"own".parse().unwrap()));
        assert_eq!(sent.try_timeout, Duration::from_millis(9));
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
            refused("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            "OTEL_EXPORTER_OTLP_COMPRESSION: `gzip`: spans are sent uncompressed only"
        );
        assert_eq!(
            refused("OTEL_EXPORTER_OTLP_HEADERS", "api-key: secret"),
            "OTEL_EXPORTER_OTLP_HEADERS: is not a list of name=value pairs with commas between them"
        );
        assert_eq!(
            refused("OTEL_BSP_SCHEDULE_DELAY", "0"),
            "OTEL_BSP_SCHEDULE_DELAY: `0` is not a whole number above 0"
        );
    }
}
