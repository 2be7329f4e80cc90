//! From a configuration to providers and exporters.

use std::sync::Arc;

use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::Registry;

use super::{
    export::{Counters, QueueProcessor},
    otlp::Collector,
    process,
    runtime::ExportThread,
    settings::{Settings, Target},
};
use crate::config::{OtlpProtocol, TelemetryConfig};

/// `service.name`, unless one is configured.
const SERVICE: &str = "llm-inference-api";

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable's value cannot hold.
    #[error("{name}: {reason}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The collector's URL cannot hold.
    #[error("cannot export to {url}: {reason}")]
    Endpoint {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The OTLP exporter does not take its settings.
    #[error("cannot export telemetry")]
    Exporter(#[from] ExporterBuildError),
    /// The metrics could not be set up.
    #[error("cannot set up metrics")]
    Metrics(#[from] OTelSdkError),
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client for telemetry")]
    Client(#[from] reqwest::Error),
    /// A pattern of what to redact is none.
    #[error("telemetry.redact")]
    Redact(#[from] regex::Error),
    /// The thread could not be started.
    #[error("cannot start the telemetry thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What a [`Telemetry`](super::Telemetry) is made of. Fields are dropped in this order: the thread that
/// exports comes last.
pub(super) struct Parts {
    pub(super) tracer_provider: SdkTracerProvider,
    pub(super) meter_provider: SdkMeterProvider,
    pub(super) registry: Registry,
    pub(super) counters: Arc<Counters>,
    /// Whether spans go anywhere; if not, a request's spans need not be built.
    pub(super) exporting: bool,
    pub(super) _thread: Option<ExportThread>,
}

/// Builds all parts.
pub(super) fn build(config: &TelemetryConfig, settings: &Settings) -> Result<Parts, TelemetryError> {
    let exports = settings.traces.is_some() || settings.metrics.is_some();
    let thread = exports.then(ExportThread::start).transpose()?;
    let resource = resource(config);
    let counters = Arc::new(Counters::default());
    let mut tracer_provider = SdkTracerProvider::builder().with_resource(resource.clone());
    // Without a ratio the sampler comes from OTEL_TRACES_SAMPLER, through the SDK.
    if let Some(ratio) = config.sample_ratio {
        let new_traces = Box::new(Sampler::TraceIdRatioBased(ratio));
        tracer_provider = tracer_provider.with_sampler(Sampler::ParentBased(new_traces));
    }
    if let Some((traces, thread)) = settings.traces.as_ref().zip(thread.as_ref()) {
        // A gRPC channel's tasks belong to the runtime in which it is made.
        let _entered = thread.handle().enter();
        let collector = Collector::new(traces, &resource)?;
        let queue = QueueProcessor::start(collector, settings.limits, Arc::clone(&counters), thread.handle());
        tracer_provider = tracer_provider.with_span_processor(queue);
    }
    let registry = Registry::new();
    Ok(Parts {
        tracer_provider: tracer_provider.build(),
        meter_provider: meter_provider(settings.metrics.as_ref().zip(thread.as_ref()), resource, &registry)?,
        registry,
        counters,
        exporting: settings.traces.is_some(),
        _thread: thread,
    })
}

/// Who is telling: the service, its version, this process.
pub(super) fn resource(config: &TelemetryConfig) -> Resource {
    let detected = Resource::builder().build();
    let name = config.service_name.clone().unwrap_or_else(|| {
        let name = detected.get(&Key::new("service.name")).map(|name| name.to_string());
        name.filter(|name| !name.starts_with("unknown_service")).unwrap_or_else(|| SERVICE.to_owned())
    });
    // What the environment says wins over what we find out.
    let found = [
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("service.instance.id", Some(uuid::Uuid::new_v4().to_string())),
        ("host.name", process::host_name()),
    ];
    let found = found.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
    let found = found.chain([KeyValue::new("process.pid", i64::from(std::process::id()))]);
    let found: Vec<_> = found.filter(|pair| detected.get(&pair.key).is_none()).collect();
    Resource::builder().with_attributes(found).with_service_name(name).build()
}

/// Metrics, served as text from `registry` and pushed to `target` if there is one.
pub(super) fn meter_provider(
    target: Option<(&Target, &ExportThread)>,
    resource: Resource,
    registry: &Registry,
) -> Result<SdkMeterProvider, TelemetryError> {
    let text =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
    let builder = SdkMeterProvider::builder().with_resource(resource).with_reader(text);
    let Some((target, thread)) = target else { return Ok(builder.build()) };
    let _entered = thread.handle().enter();
    let exporter = match target.protocol {
        OtlpProtocol::Grpc => MetricExporter::builder().with_tonic().with_endpoint(&target.url).build()?,
        // The SDK's reader has a thread of its own, for which the exporter's blocking client is right.
        OtlpProtocol::HttpProtobuf => MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&target.url)
            .build()?,
    };
    Ok(builder.with_reader(PeriodicReader::builder(exporter).build()).build())
}
