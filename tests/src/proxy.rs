//! A line between client and server that is long, or whose client stops reading for a while.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// Bytes read at once.
const PIECE: usize = 4 << 10;

/// Pieces under way in one direction.
const UNDER_WAY: usize = 1024;

/// Segments as small as on the oldest networks. A loopback connection's are so large that the sender's kernel
/// takes megabytes before it feels that nobody reads.
const SEGMENT: u32 = 536;

/// What only the head of a streamed answer says.
const STREAM: &[u8] = b"text/event-stream";

/// What the line does.
#[derive(Debug, Clone, Copy)]
pub enum Line {
    /// Every byte takes this long, each way.
    Long(Duration),
    /// Streamed answers are not read for this long once they have begun, and hardly any of them waits on the way.
    Paused(Duration),
}

/// A running proxy; it ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of the server at `url`.
    pub async fn start(url: &str, line: Line) -> anyhow::Result<Self> {
        let server: SocketAddr = url.strip_prefix("http://").context("not http")?.parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, server, line));
            }
        });
        Ok(Self { address, accepting })
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until both sides are done; a broken one is seen by the side that is left.
async fn connect(client: TcpStream, server: SocketAddr, line: Line) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if let Line::Paused(_) = line {
        socket.set_recv_buffer_size(PIECE as u32)?;
        SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    }
    let server = socket.connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(carry(from_client, to_server, line), carry(from_server, to_client, line))?;
    Ok(())
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: Line) -> anyhow::Result<()> {
    let (pieces, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return anyhow::Ok(());
            }
            let piece = buffer[..length].to_vec();
            let (delay, pause) = match line {
                Line::Long(delay) => (delay, None),
                // The client asks for the type, too: what begins a stream is the answer's status.
                Line::Paused(pause) => {
                    let begins =
                        piece.starts_with(b"HTTP/1.1 200") && piece.windows(STREAM.len()).any(|part| part == STREAM);
                    (Duration::ZERO, begins.then_some(pause))
                }
            };
            pieces.send((Instant::now() + delay, piece)).await?;
            if let Some(pause) = pause {
                sleep(pause).await;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}
