//! Asks Jaeger for the traces of the server, a page after another.
//!
//! Its search has no pages: it gives up to so many traces of a time range. A range that gives as many as were
//! asked for is halved until its parts give fewer.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;
use url::Url;

use super::gathering::Gathering;
use super::traces::hex128;
use super::{Query, otlp};
use crate::words::counted;

/// Traces asked for at a time.
const PAGE: usize = 500;

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 256 << 20;

/// A range as short as this is not halved.
const SHORTEST: u64 = 1_000_000;

/// How far beyond the requests that are known spans are looked for, in nanoseconds.
const MARGIN: u64 = 1_000_000_000;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Adds the spans of the server's requests, and says how many traces there were.
pub(super) async fn fetch(base: &Url, query: &Query, gathering: &mut Gathering) -> anyhow::Result<String> {
    let jaeger = Jaeger::new(base)?;
    let (from, to) = match gathering.time_range() {
        Some((first, last)) => (first.saturating_sub(MARGIN), last.saturating_add(MARGIN)),
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (nanos(now.saturating_sub(query.window)), nanos(now).saturating_add(MARGIN))
        }
    };
    let mut search = Search { jaeger: &jaeger, query, seen: HashSet::new(), pages: 0, crowded: 0 };
    for operation in jaeger.operations(&query.service).await? {
        search.all(&operation, (from, to), gathering).await?;
    }
    let traces = counted(search.seen.len() as u64, "trace");
    let crowded = match search.crowded {
        0 => String::new(),
        count => format!(", and more in {} that are too crowded to search", counted(count, "millisecond")),
    };
    let limited = if search.seen.len() >= query.limit { ", as many as --limit allows" } else { "" };
    Ok(format!("{traces} from {} to {}{limited}{crowded}", rfc3339(from), rfc3339(to)))
}

struct Jaeger {
    client: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
struct Operations {
    #[serde(default)]
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Operation {
    name: String,
    span_kind: String,
}

/// What a question gave.
enum Answer {
    Body(Vec<u8>),
    Nothing,
    TooLong,
}

impl Jaeger {
    fn new(base: &Url) -> anyhow::Result<Self> {
        ensure!(base.query().is_none(), "must be the address of Jaeger itself, such as http://localhost:16686");
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { client, base: base.as_str().trim_end_matches('/').to_owned() })
    }

    /// The operations by which the service serves requests.
    async fn operations(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let parameters = [("service", service.to_owned())];
        let operations = match self.ask("/api/v3/operations", &parameters).await? {
            Answer::Body(body) => {
                let found: Operations = serde_json::from_slice(&body).context("its operations are not Jaeger's")?;
                found.operations
            }
            Answer::Nothing => Vec::new(),
            Answer::TooLong => bail!("its list of operations is longer than {ANSWER_LIMIT} bytes"),
        };
        let serves = |operation: &Operation| operation.span_kind.eq_ignore_ascii_case("server");
        let mut names: Vec<String> = operations.into_iter().filter(serves).map(|operation| operation.name).collect();
        names.sort();
        names.dedup();
        ensure!(!names.is_empty(), "has no service {service:?} that serves requests (--service)");
        Ok(names)
    }

    async fn ask(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Answer> {
        let mut url = Url::parse(&format!("{}{path}", self.base))?;
        url.query_pairs_mut().extend_pairs(parameters);
        let mut response = self.client.get(url).send().await.context("cannot be asked")?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.context("its answer broke off")? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Ok(Answer::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        match status.as_u16() {
            200 => Ok(Answer::Body(body)),
            // It knows no such traces, and says so as if they were a page.
            404 if serde_json::from_slice::<serde_json::Value>(&body).is_ok() => Ok(Answer::Nothing),
            status => {
                let text: String =
                    String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(300).collect();
                bail!("answered {path} with {status}: {text}")
            }
        }
    }
}

struct Search<'a> {
    jaeger: &'a Jaeger,
    query: &'a Query,
    /// Traces that were found.
    seen: HashSet<u128>,
    pages: usize,
    /// Ranges that hold more than a page and cannot be halved.
    crowded: u64,
}

impl Search<'_> {
    /// All traces with `operation` that are in a range, earlier ones first.
    async fn all(&mut self, operation: &str, range: (u64, u64), gathering: &mut Gathering) -> anyhow::Result<()> {
        let mut ranges = vec![range];
        while let Some((from, to)) = ranges.pop() {
            if self.seen.len() >= self.query.limit {
                break;
            }
            self.pages += 1;
            ensure!(self.pages <= 1000 + 8 * self.query.limit / PAGE, "does not come to an end of its traces");
            let answer = self.page(operation, from, to).await?;
            let splits = to - from > SHORTEST;
            let body = match answer {
                Answer::Nothing => continue,
                Answer::Body(body) => body,
                Answer::TooLong if splits => Vec::new(),
                Answer::TooLong => bail!("gives more than {ANSWER_LIMIT} bytes for a millisecond"),
            };
            if body.is_empty() || self.take(&body, splits, gathering)? {
                let middle = from + (to - from) / 2;
                ranges.extend([(middle, to), (from, middle)]);
            }
        }
        Ok(())
    }

    async fn page(&self, operation: &str, from: u64, to: u64) -> anyhow::Result<Answer> {
        let parameters = [
            ("query.service_name", self.query.service.clone()),
            ("query.operation_name", operation.to_owned()),
            ("query.start_time_min", rfc3339(from)),
            ("query.start_time_max", rfc3339(to)),
            ("query.num_traces", PAGE.to_string()),
        ];
        self.jaeger.ask("/api/v3/traces", &parameters).await
    }

    /// Adds the traces of a page that were not there yet; true, and nothing added, if the page is full and its
    /// range can be halved.
    fn take(&mut self, body: &[u8], splits: bool, gathering: &mut Gathering) -> anyhow::Result<bool> {
        let mut traces = HashSet::new();
        otlp::read(body, &mut |span| traces.extend(hex128(span.trace_id)))?;
        let full = traces.len() >= PAGE;
        if full && splits {
            return Ok(true);
        }
        self.crowded += u64::from(full);
        otlp::read(body, &mut |span| {
            // Of a trace that was in a page before, all spans were there.
            if hex128(span.trace_id).is_none_or(|trace| !self.seen.contains(&trace)) {
                gathering.add_span(span);
            }
        })?;
        self.seen.extend(traces);
        Ok(false)
    }
}

fn nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment as RFC 3339 has it, in UTC.
fn rfc3339(nanos: u64) -> String {
    let moment = DateTime::from_timestamp_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
    moment.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), expected);
        }
        assert_eq!(rfc3339(1_001_002_003), "1970-01-01T00:00:01.001002003Z");
    }
}
