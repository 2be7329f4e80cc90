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
    /// Names it is asked under besides this machine's own; `*` is any. With one, or on loopback without keys, others
    /// are refused.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages that may ask, such as `https://a.example`; `*` is any.
    pub cors_origin: Vec<String>,
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
            allowed_hosts: Vec::new(),
            cors_origin: Vec::new(),
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

    /// Whether a request that names `host`, without a port, is answered.
    pub fn answers_to(&self, host: &str, is_open: bool) -> bool {
        if self.allowed_hosts.is_empty() && !(is_open && self.host.is_loopback()) {
            return true;
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_own = name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|at| at.is_loopback());
        is_own || self.allowed_hosts.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(&name))
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.allowed_hosts.iter().any(|name| name.is_empty() || name.contains(['/', '@', ' '])) {
            return Err(("server.allowed_hosts", "holds what can be no host's name".to_owned()));
        }
        let is_origin = |page: &str| {
            page == "*" || url::Url::parse(page).is_ok_and(|url| url.origin().ascii_serialization() == page)
        };
        if let Some(page) = self.cors_origin.iter().find(|page| !is_origin(page)) {
            return Err(("server.cors_origin", format!("`{page}` is not an origin such as https://a.example")));
        }
        within("server.max_connections", self.max_connections, 1..=1_000_000)?;
        within("server.header_timeout", self.header_timeout, Seconds::new(1)..=Seconds::new(3600))?;
        within("server.write_timeout", self.write_timeout, Seconds::new(1)..=Seconds::new(3600))?;
        within("server.keep_alive", self.keep_alive, Seconds::new(1)..=Seconds::new(3600))?;
        within("server.drain_timeout", self.drain_timeout, Seconds::new(0)..=Seconds::new(86_400))
    }
}
