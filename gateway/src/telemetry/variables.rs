//! OpenTelemetry's variables, as its specification of the OTLP exporter has them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{settings::Target, setup::TelemetryError};
use crate::config::{OtlpProtocol, TelemetryConfig};

/// The variables of one signal, which win over those of all.
#[derive(Debug)]
pub(super) struct Signal {
    endpoint: &'static str,
    protocol: &'static str,
    insecure: &'static str,
    headers: &'static str,
    compression: &'static str,
    path: &'static str,
}

/// Those of spans.
pub(super) const TRACES: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    insecure: "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    path: "/v1/traces",
};

/// Those of metrics.
pub(super) const METRICS: Signal = Signal {
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    insecure: "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    path: "/v1/metrics",
};

/// Where variables are read.
pub(super) struct Variables<F> {
    read: F,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    /// Those that `read` gives.
    pub(super) fn new(read: F) -> Self {
        Self { read }
    }

    /// An empty variable counts as unset.
    fn get(&self, name: &str) -> Option<String> {
        (self.read)(name).filter(|value| !value.is_empty())
    }

    /// The first of them that is set, and which.
    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    /// Whether `name` is set to `value`.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|set| set.eq_ignore_ascii_case(value))
    }

    /// A number above 0.
    pub(super) fn number(&self, name: &'static str, default: usize) -> Result<usize, TelemetryError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.trim().parse().ok().filter(|&number| number > 0);
        number.ok_or_else(|| refused(name, format!("`{text}` is not a whole number above 0")))
    }

    /// Where a signal goes, if anywhere.
    pub(super) fn target(&self, config: &TelemetryConfig, signal: &Signal) -> Result<Option<Target>, TelemetryError> {
        let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let configured = config.otlp_endpoint.clone().map(|url| ("telemetry.otlp_endpoint", url));
        let Some((name, url)) = configured.or_else(|| self.first([signal.endpoint, general])) else {
            return Ok(None);
        };
        let protocol = self.protocol(config, signal)?.unwrap_or_else(|| match url::Url::parse(&url) {
            Ok(url) if url.port() == Some(4317) => OtlpProtocol::Grpc,
            _ => OtlpProtocol::HttpProtobuf,
        });
        let url = match protocol {
            OtlpProtocol::Grpc => self.with_scheme(url, signal),
            // What is said of one signal is the whole of its URL.
            OtlpProtocol::HttpProtobuf if name == signal.endpoint => url,
            OtlpProtocol::HttpProtobuf => format!("{}{}", url.trim_end_matches('/'), signal.path),
        };
        let parsed = url::Url::parse(&url).ok().filter(|url| url.has_host());
        match parsed.as_ref().map(url::Url::scheme) {
            Some("https") if protocol == OtlpProtocol::Grpc => {
                Err(refused(name, "gRPC over TLS is not supported, `http/protobuf` over TLS is".to_owned()))
            }
            Some("http" | "https") => Ok(Some(Target { url, protocol })),
            _ => Err(refused(name, format!("`{url}` is not an http or https URL"))),
        }
    }

    /// For gRPC a host and a port are enough; whether TLS is meant is then said elsewhere.
    fn with_scheme(&self, url: String, signal: &Signal) -> String {
        let insecure = self.first([signal.insecure, "OTEL_EXPORTER_OTLP_INSECURE"]);
        match insecure {
            _ if url.contains("://") => url,
            Some((_, value)) if value.eq_ignore_ascii_case("true") => format!("http://{url}"),
            _ => format!("https://{url}"),
        }
    }

    fn protocol(&self, config: &TelemetryConfig, signal: &Signal) -> Result<Option<OtlpProtocol>, TelemetryError> {
        let set = self.first([signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        match (config.otlp_protocol, set) {
            (Some(protocol), _) => Ok(Some(protocol)),
            (None, None) => Ok(None),
            (None, Some((name, value))) => match value.as_str() {
                "grpc" => Ok(Some(OtlpProtocol::Grpc)),
                "http/protobuf" => Ok(Some(OtlpProtocol::HttpProtobuf)),
                other => Err(refused(name, format!("`{other}` is neither `grpc` nor `http/protobuf`"))),
            },
        }
    }

    /// What goes with each export: `name=value` pairs between commas, values percent-encoded.
    pub(super) fn headers(&self, signal: &Signal) -> Result<HeaderMap, TelemetryError> {
        let Some((name, text)) = self.first([signal.headers, "OTEL_EXPORTER_OTLP_HEADERS"]) else {
            return Ok(HeaderMap::new());
        };
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate();
        // A value may be a secret: what is wrong is said by its place.
        let read = entries.map(|(place, entry)| {
            header(entry).ok_or_else(|| {
                let what = "is not `name=value` with a name and a value that a header may have";
                refused(name, format!("entry {} {what}", place + 1))
            })
        });
        read.collect()
    }

    /// Spans are sent as they are.
    pub(super) fn refuse_compression(&self, signal: &Signal) -> Result<(), TelemetryError> {
        match self.first([signal.compression, "OTEL_EXPORTER_OTLP_COMPRESSION"]) {
            Some((name, value)) if value != "none" => {
                Err(refused(name, format!("`{value}` is not supported, only `none` is")))
            }
            _ => Ok(()),
        }
    }
}

fn refused(name: &'static str, reason: String) -> TelemetryError {
    TelemetryError::Variable { name, reason }
}

fn header(entry: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = entry.split_once('=')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    let mut value = HeaderValue::try_from(percent_decoded(value.trim())).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// `%41` is `A`; a `%` that begins no such code stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |place: usize| char::from(*tail.get(place)?).to_digit(16);
        let (byte, after) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => ((high << 4 | low) as u8, &tail[2..]),
            _ => (*first, tail),
        };
        decoded.push(byte);
        rest = after;
    }
    decoded
}
