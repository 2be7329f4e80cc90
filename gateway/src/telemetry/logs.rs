//! Log lines on standard error, as text or JSON.
//!
//! `RUST_LOG` chooses levels, else the configuration. OpenTelemetry's own lines stay out either way: `export`
//! says in one line when it begins to fail, they would say it for every batch.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, filter::FilterFn, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the whole process; does nothing where a subscriber is set already.
pub fn init(config: &LogConfig) {
    let levels = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&config.filter));
    let own = FilterFn::new(|metadata| !metadata.target().starts_with("opentelemetry"));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(levels).with(lines.with_filter(own)).try_init();
}
