//! What handlers may reach, and whether the gateway takes requests.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    backend::LocalBackend,
    config::{ApiKeys, Config, ConfigError},
    error::{ApiError, ErrorCode},
    middleware::rate_limit::RateLimit,
    recent::Recent,
    telemetry::Telemetry,
};

/// The gateway's shared state; clones share it.
#[derive(Debug, Clone)]
pub struct App {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    keys: ApiKeys,
    rate_limit: Option<RateLimit>,
    telemetry: Telemetry,
    recent: Option<Recent>,
    started: Instant,
    backend: OnceLock<LocalBackend>,
    draining: AtomicBool,
    abort: CancellationToken,
}

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not yet: the model is being loaded.
    Loading,
    /// Yes.
    Ready,
    /// No more: what runs may end.
    Draining,
    /// No more: the engine's device computes nothing any longer. Only a restart helps.
    Failed,
}

impl Status {
    /// The name in `/health`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed => "failed",
        }
    }
}

impl App {
    /// A gateway that is loading. Reads the API keys.
    pub fn new(config: Config, telemetry: Telemetry) -> Result<Self, ConfigError> {
        let keys = config.auth.keys()?;
        if let Some(warning) = config.auth.warning() {
            tracing::warn!("{warning}");
        }
        let rate_limit = RateLimit::new(&config.limits, keys.len());
        let recent = config.server.shows_requests().then(Recent::default);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                keys,
                rate_limit,
                telemetry,
                recent,
                started: Instant::now(),
                backend: OnceLock::new(),
                draining: AtomicBool::new(false),
                abort: CancellationToken::new(),
            }),
        })
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Who may ask.
    pub fn keys(&self) -> &ApiKeys {
        &self.shared.keys
    }

    /// How often each may ask, if that is limited.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.shared.rate_limit.as_ref()
    }

    /// Where spans and metrics go.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// The last requests that ended, where they are kept.
    pub fn recent(&self) -> Option<&Recent> {
        self.shared.recent.as_ref()
    }

    /// Time since start.
    pub fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Whether requests are taken.
    pub fn status(&self) -> Status {
        match self.shared.backend.get() {
            _ if self.shared.draining.load(Ordering::Relaxed) => Status::Draining,
            Some(backend) if backend.has_stopped() => Status::Failed,
            Some(_) => Status::Ready,
            None => Status::Loading,
        }
    }

    /// The backend that answers, or why none does.
    pub fn backend(&self) -> Result<&LocalBackend, ApiError> {
        match (self.status(), self.shared.backend.get()) {
            (Status::Ready, Some(backend)) => Ok(backend),
            (Status::Draining, _) => Err(ApiError::new(ErrorCode::ShuttingDown, "the gateway is stopping")),
            (Status::Failed, _) => Err(ApiError::new(ErrorCode::EngineFailed, "the engine's device failed")),
            _ => Err(ApiError::new(ErrorCode::ModelLoading, "the model is being loaded")),
        }
    }

    /// Takes requests from now on.
    pub(crate) fn ready(&self, backend: LocalBackend) {
        // There is one loader: a second backend cannot come.
        let _ = self.shared.backend.set(backend);
    }

    /// Takes no more requests.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Cancelled when running requests must end.
    pub(crate) fn abort(&self) -> &CancellationToken {
        &self.shared.abort
    }

    /// Stops the engine, if there is one. Blocks for one step at most.
    pub(crate) fn stop_engine(&self) {
        if let Some(backend) = self.shared.backend.get() {
            backend.shutdown();
        }
    }
}
