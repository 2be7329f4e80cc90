//! One client's socket: when the last byte of an answer left us, and when a client no longer reads.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};

use crate::request::RequestGuard;

/// How long an unread request is read and thrown away, so that its sender gets to see our answer.
const LINGER: Duration = Duration::from_secs(2);

/// Requests whose answers are with the HTTP layer but not yet in the socket.
///
/// The HTTP layer flushes only when it has written everything it holds, so a flush means they are out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delivery {
    expected: Arc<Mutex<Vec<RequestGuard>>>,
}

impl Delivery {
    /// Closes `guard`'s request at the next flush, or as cancelled if the connection ends before.
    pub(crate) fn expect(&self, guard: RequestGuard) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
    }

    fn flushed(&self) {
        let guards = std::mem::take(&mut *self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        guards.into_iter().for_each(RequestGuard::complete);
    }
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct ClientStream {
    socket: TcpStream,
    delivery: Delivery,
    write_timeout: Duration,
    /// Runs while the socket is full.
    full: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(crate) fn new(socket: TcpStream, write_timeout: Duration) -> Self {
        Self { socket, delivery: Delivery::default(), write_timeout, full: None }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery.clone()
    }

    /// Ends the connection without a reset: one would throw away what the client has not read yet.
    pub(crate) async fn close(mut self) {
        if self.socket.shutdown().await.is_ok() {
            let mut rest = [0; 16 << 10];
            let drained = async { while self.socket.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
            let _ = timeout(LINGER, drained).await;
        }
    }

    /// Passes on the result of a write, and gives up on a client that does not read for too long.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.full = None;
            return written;
        }
        let wait = self.write_timeout;
        let full = self.full.get_or_insert_with(|| Box::pin(sleep(wait)));
        ready!(full.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.delivery.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
