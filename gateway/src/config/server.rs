//! Where the gateway listens, what one connection may do, and how it stops.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Seconds, Violation, within};

/// The `[server]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Connections open at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Time for a request's head to arrive, counted from when the connection is free for it.
    pub header_timeout: Seconds,
    /// Time a client may leave its socket full before the connection is given up.
    pub write_timeout: Seconds,
    /// Silence on a stream after which a comment is sent.
    pub keep_alive: Seconds,
    /// Time that running requests get to end after a stop signal.
    pub drain_timeout: Seconds,
    /// Whether `/debug/requests` shows the last requests; else only where `host` is a loopback address.
    pub debug_requests: Option<bool>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            max_connections: 4096,
            header_timeout: Seconds::new(60),
            write_timeout: Seconds::new(60),
            keep_alive: Seconds::new(15),
            drain_timeout: Seconds::new(30),
            debug_requests: None,
        }
    }
}

impl ServerConfig {
    /// The address to bind.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Whether the last requests are kept and shown.
    pub fn shows_requests(&self) -> bool {
        self.debug_requests.unwrap_or(self.host.is_loopback())
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        within("server.max_connections", self.max_connections, 1..=1_000_000)?;
        within("server.header_timeout", self.header_timeout, Seconds::new(1)..=Seconds::new(3600))?;
        within("server.write_timeout", self.write_timeout, Seconds::new(1)..=Seconds::new(3600))?;
        within("server.keep_alive", self.keep_alive, Seconds::new(1)..=Seconds::new(3600))?;
        within("server.drain_timeout", self.drain_timeout, Seconds::new(0)..=Seconds::new(86_400))
    }
}
