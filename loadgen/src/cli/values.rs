//! What the values of flags may look like.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use url::Url;

/// From how many to how many tokens, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenRange {
    /// The fewest.
    pub from: u32,
    /// The most.
    pub to: u32,
}

impl FromStr for TokenRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.parse::<u32>().map_err(|error| format!("{part:?}: {error}"));
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(text)?, number(text)?),
        };
        if from == 0 || from > to {
            return Err("must be at least 1, and a range must not run backwards".into());
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for TokenRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { from, to } if from == to => write!(formatter, "{from}"),
            Self { from, to } => write!(formatter, "{from}..{to}"),
        }
    }
}

/// Hours, minutes and seconds in that order, such as `1h30m`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 30s, 5m or 1h30m");
    let mut total = 0_u64;
    let mut rest = text;
    let mut larger = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let (unit, length) = match rest[digits..].chars().next() {
            Some('h') => (3600, 1),
            Some('m') => (60, 1),
            Some('s') => (1, 1),
            None if larger == u64::MAX => (1, 0),
            _ => return Err(wrong()),
        };
        if unit >= larger {
            return Err(wrong());
        }
        larger = unit;
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + length..];
    }
    match total {
        0 => Err("must be at least one second".into()),
        total => Ok(Duration::from_secs(total)),
    }
}

/// Zero is allowed: then nothing is waited for.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    let limit = Duration::from_secs(24 * 3600);
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => {
            duration(text).and_then(|time| if time <= limit { Ok(time) } else { Err("must be at most a day".into()) })
        }
    }
}

pub(super) fn run_time(text: &str) -> Result<Duration, String> {
    let limit = Duration::from_secs(7 * 24 * 3600);
    duration(text).and_then(|time| if time <= limit { Ok(time) } else { Err("must be at most a week".into()) })
}

pub(super) fn positive_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number of users per second from 0.01 to 10000".into()),
    }
}

pub(super) fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0 on".into()),
    }
}

/// The address of a server; what is wrong with it is said without repeating it, as it may hold a password.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; expected such as http://127.0.0.1:8000"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with http:// or https:// and name a host".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".into());
    }
    Ok(url)
}
