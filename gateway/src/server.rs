//! Accepts connections, serves the router on them, and drains when told to stop.

use std::{
    future::{poll_fn, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use futures::future::Either;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{config::ServerConfig, connection::ClientStream, router::router, state::App};

/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Bytes of an answer held back for a slow reader before its generation feels it.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// Pause after a failed accept: the usual cause, too many open files, takes time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for requests to tell their clients that the drain is over.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Serves until `stop`, then lets running requests end within the drain time, and breaks off the rest.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) {
    let mut connections = accept(listener, &app, &stop).await;
    app.drain();
    tracing::info!(connections = connections.len(), "draining");
    let drain = app.config().server.drain_timeout.get();
    if timeout(drain, all_done(&mut connections)).await.is_err() {
        tracing::warn!(connections = connections.len(), "breaking off what did not end in time");
        app.abort().cancel();
        // A failure to end even now is met by dropping the connections.
        let _ = timeout(ABORT_GRACE, all_done(&mut connections)).await;
        connections.shutdown().await;
    }
}

async fn all_done(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Accepts until `stop`; gives back the connections still open. The listener is closed by then.
async fn accept(listener: TcpListener, app: &App, stop: &CancellationToken) -> JoinSet<()> {
    let config = &app.config().server;
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let router = router(app.clone());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return connections,
            Some(_) = connections.join_next() => continue,
            accepted = accept_one(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((socket, slot)) => {
                let connection = serve_connection(socket, router.clone(), config.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_one(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    Ok((socket, slot))
}

async fn serve_connection(socket: TcpStream, router: Router, config: ServerConfig, stop: CancellationToken) {
    // Without it a stream's small writes wait for the client's delayed acknowledgements.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = ClientStream::new(socket, config.write_timeout.get());
    let delivery = stream.delivery();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(delivery.clone());
        let mut answering = Box::pin(router.clone().oneshot(request.map(Body::new)));
        // Begun at once: the HTTP layer drops the future unpolled if the client has left by then, and no ledger
        // would show the request. It polls what is pending again by itself.
        match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Either::Left(ready(answer)),
            Poll::Pending => Either::Right(answering),
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout.get())
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let served = {
        let mut serving = pin!(poll_fn(|cx| connection.poll_without_shutdown(cx)));
        tokio::select! {
            served = &mut serving => Some(served),
            () = stop.cancelled() => None,
        }
    };
    let served = match served {
        Some(served) => served,
        None => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
    connection.into_parts().io.into_inner().close().await;
}
