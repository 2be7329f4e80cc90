//! Requests as fast as they go, over a few connections that are kept open: written and read as bytes, so that the
//! gateway is what limits the rate. One in [`TINY_EVERY`] is answered with a token, all others are refused.

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

/// How rare requests are that are not refused.
pub const TINY_EVERY: usize = 50;

const CONNECTIONS: usize = 8;
const TINY: &str = r#"{"prompt":"Hi","max_tokens":1,"ignore_eos":true,"raw":true}"#;
const REFUSED: &str = r#"{"prompt":"Hi","max_tokens":0}"#;

/// Requests under way.
#[derive(Debug)]
pub struct Flood {
    connections: JoinSet<()>,
    answers: watch::Sender<Answers>,
}

/// What came back so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// Whole answers.
    pub answered: usize,
    /// Refusals.
    pub refused: usize,
}

impl Answers {
    /// All of them.
    pub fn all(self) -> usize {
        self.answered + self.refused
    }
}

impl Flood {
    /// Sends `requests` to the gateway at `url`.
    pub fn start(url: &str, requests: usize) -> Self {
        let address = url.trim_start_matches("http://").to_owned();
        let answers = watch::Sender::default();
        let mut connections = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let (address, answers) = (address.clone(), answers.clone());
            let share = (connection..requests).step_by(CONNECTIONS);
            connections.spawn(async move {
                if let Err(error) = connect(&address, share, &answers).await {
                    println!("flood: a connection ended: {error:#}");
                }
            });
        }
        Self { connections, answers }
    }

    /// Waits until so many were answered; an error if the connections end before.
    pub async fn reached(&mut self, requests: usize) -> anyhow::Result<()> {
        let mut answers = self.answers.subscribe();
        tokio::select! {
            reached = answers.wait_for(|answers| answers.all() >= requests) => reached.map(drop)?,
            () = async { while self.connections.join_next().await.is_some() {} } => {
                let all = self.answers.borrow().all();
                anyhow::ensure!(all >= requests, "the flood ended after {all} requests");
            }
        }
        Ok(())
    }

    /// Waits until every connection has sent its share, or was broken off.
    pub async fn end(mut self) -> Answers {
        while self.connections.join_next().await.is_some() {}
        *self.answers.borrow()
    }
}

/// One connection's share, one request after the other.
async fn connect(
    address: &str,
    share: impl Iterator<Item = usize>,
    answers: &watch::Sender<Answers>,
) -> anyhow::Result<()> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    for number in share {
        let body = if number % TINY_EVERY == 0 { TINY } else { REFUSED };
        let head = "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length:";
        let request = format!("{head} {}\r\n\r\n{body}", body.len());
        socket.write_all(request.as_bytes()).await?;
        let status = read_answer(&mut socket).await?;
        answers.send_modify(|answers| match status {
            200 => answers.answered += 1,
            _ => answers.refused += 1,
        });
    }
    Ok(())
}

/// Reads one answer to its end; gives its status.
async fn read_answer(socket: &mut BufReader<TcpStream>) -> anyhow::Result<u16> {
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let mut length = 0;
    loop {
        line.clear();
        socket.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            Some(_) => {}
            None => break,
        }
    }
    socket.read_exact(&mut vec![0; length]).await?;
    Ok(status)
}
