//! From a configuration to providers and exporters.

use std::sync::Arc;

use engine::DeviceInfo;
use opentelemetry::{Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{Sampler, SdkTracer, SdkTracerProvider, TracerProviderBuilder},
};
use prometheus::Registry;

use super::{
    export::{Envelope, GrpcTransport, HttpTransport, QueueProcessor, SpanQueue},
    process,
    runtime::ExportThread,
    settings::{Settings, Target, TraceTarget},
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
    /// The collector's URL is none for gRPC.
    #[error("cannot export spans over gRPC")]
    Channel(#[from] http::uri::InvalidUri),
    /// The OTLP exporter of metrics does not take its settings.
    #[error("cannot export metrics")]
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
    /// Of the spans that the SDK makes.
    pub(super) tracer_provider: SdkTracerProvider,
    /// Gives a request's server span its ids and decides whether it is recorded; where its spans go is not its
    /// matter.
    pub(super) ids: SdkTracer,
    pub(super) meter_provider: SdkMeterProvider,
    pub(super) registry: Registry,
    pub(super) queue: Arc<SpanQueue>,
    /// Whether spans go anywhere; if not, a request's spans need not be built.
    pub(super) exporting: bool,
    pub(super) _thread: Option<ExportThread>,
}

/// Builds all parts.
pub(super) fn build(
    config: &TelemetryConfig,
    settings: &Settings,
    device: Option<&DeviceInfo>,
) -> Result<Parts, TelemetryError> {
    let exports = settings.traces.is_some() || settings.metrics.is_some();
    let thread = exports.then(ExportThread::start).transpose()?;
    let resource = resource(config, device);
    let queue = Arc::new(SpanQueue::new(settings.limits));
    let mut tracer_provider = sampled(config);
    if let Some((target, thread)) = settings.traces.as_ref().zip(thread.as_ref()) {
        let envelope = Envelope::new(&resource);
        tracer_provider = tracer_provider.with_span_processor(processor(target, envelope, &queue, thread)?);
    }
    let registry = Registry::new();
    Ok(Parts {
        tracer_provider: tracer_provider.build(),
        ids: ids(config),
        meter_provider: meter_provider(settings.metrics.as_ref().zip(thread.as_ref()), resource, &registry)?,
        registry,
        queue,
        exporting: settings.traces.is_some(),
        _thread: thread,
    })
}

/// Samples as configured. Without a ratio the sampler comes from OTEL_TRACES_SAMPLER, through the SDK.
fn sampled(config: &TelemetryConfig) -> TracerProviderBuilder {
    let builder = SdkTracerProvider::builder();
    match config.sample_ratio {
        Some(ratio) => builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)))),
        None => builder,
    }
}

/// A tracer that samples in the same way, and whose spans go nowhere.
pub(super) fn ids(config: &TelemetryConfig) -> SdkTracer {
    sampled(config).with_resource(Resource::builder_empty().build()).build().tracer("gateway")
}

/// Who is telling: the service, its version, this process, the GPU it computes on.
pub(super) fn resource(config: &TelemetryConfig, device: Option<&DeviceInfo>) -> Resource {
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
    let found = found.chain(device.into_iter().flat_map(gpu));
    let found: Vec<_> = found.filter(|pair| detected.get(&pair.key).is_none()).collect();
    Resource::builder().with_attributes(found).with_service_name(name).build()
}

/// A GPU, by the names of OpenTelemetry's conventions for hardware as far as they go. Theirs for the driver's version
/// means the driver's own, which CUDA does not tell.
fn gpu(device: &DeviceInfo) -> [KeyValue; 9] {
    let version = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    [
        KeyValue::new("hw.type", "gpu"),
        KeyValue::new("hw.vendor", "NVIDIA"),
        KeyValue::new("hw.model", device.name.clone()),
        KeyValue::new("gpu.driver.cuda_version", version(device.driver)),
        KeyValue::new("gpu.compute_capability", version(device.capability)),
        KeyValue::new("gpu.multiprocessors", i64::from(device.multiprocessors)),
        KeyValue::new("gpu.memory.bytes", device.memory_bytes.cast_signed()),
        KeyValue::new("gpu.clock.max_mhz", i64::from(device.clock_mhz)),
        KeyValue::new("gpu.memory.clock.max_mhz", i64::from(device.memory_clock_mhz)),
    ]
}

/// Sends spans to `target`, from `thread`.
fn processor(
    target: &TraceTarget,
    envelope: Envelope,
    queue: &Arc<SpanQueue>,
    thread: &ExportThread,
) -> Result<QueueProcessor, TelemetryError> {
    // A channel's tasks belong to the runtime in which it is built.
    let _entered = thread.handle().enter();
    let (url, headers, queue) = (&target.target.url, target.headers.clone(), Arc::clone(queue));
    Ok(match target.target.protocol {
        OtlpProtocol::Grpc => {
            QueueProcessor::start(GrpcTransport::new(url, headers)?, envelope, queue, thread.handle())
        }
        OtlpProtocol::HttpProtobuf => {
            QueueProcessor::start(HttpTransport::new(url, headers)?, envelope, queue, thread.handle())
        }
    })
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
