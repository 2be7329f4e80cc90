//! One gateway from start to end: it listens at once, loads, serves, drains.

use std::pin::pin;

use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{LocalBackend, StartError},
    config::{Config, ConfigError},
    server,
    state::App,
    telemetry::Telemetry,
};

/// The gateway could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its API keys.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its model or engine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The thread that loads the model.
    #[error("cannot start a thread to load the model")]
    Thread(#[from] std::io::Error),
    /// The thread that loads the model broke down.
    #[error("loading the model failed without a reason; this is a bug")]
    LoaderGone,
}

/// Serves on `listener` until `stop`, then drains. An error means that the model could not be loaded.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let app = App::new(config, telemetry)?;
    let loaded = load(&app)?;
    let mut serving = pin!(server::serve(listener, app.clone(), stop));
    tokio::select! {
        backend = loaded => app.ready(backend.map_err(|_| RunError::LoaderGone)??),
        // Stopped while loading: there is nothing to wait for.
        () = &mut serving => return Ok(()),
    }
    serving.await;
    // A failure to join means the engine's thread broke down, which its requests have told already.
    let _ = tokio::task::spawn_blocking(move || app.stop_engine()).await;
    Ok(())
}

/// Loads on a thread of its own, which unlike the runtime's does not hold up the end of the process.
fn load(app: &App) -> std::io::Result<oneshot::Receiver<Result<LocalBackend, StartError>>> {
    let (done, loaded) = oneshot::channel();
    let app = app.clone();
    std::thread::Builder::new().name("model-loader".to_owned()).spawn(move || {
        let _ = done.send(LocalBackend::start(app.config(), app.telemetry()));
    })?;
    Ok(loaded)
}
