//! The server's `/metrics`: Prometheus text, read whole, and series asked for by name and label.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use reqwest::StatusCode;

use super::{PROBE_TIMEOUT, Target};

/// The most of the page that is read.
const SIZE_LIMIT: usize = 4 << 20;

/// The most series that are kept of it.
const SERIES_LIMIT: usize = 20_000;

/// One reading of the page.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    series: HashMap<String, Vec<Series>>,
}

#[derive(Debug, Clone)]
struct Series {
    /// What stands between the braces.
    labels: String,
    value: f64,
}

impl Metrics {
    /// Reads the page; `None` when the server has none.
    pub async fn read(target: &Target) -> anyhow::Result<Option<Self>> {
        let response = target.client.get(target.url("/metrics")).timeout(PROBE_TIMEOUT).send().await;
        let mut response = response.map_err(reqwest::Error::without_url)?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let mut body = Vec::new();
        while let Some(bytes) =
            response.chunk().await.map_err(reqwest::Error::without_url).context("while reading /metrics")?
        {
            if body.len() + bytes.len() > SIZE_LIMIT {
                bail!("/metrics is larger than {SIZE_LIMIT} bytes");
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Some(Self::parse(&String::from_utf8_lossy(&body))))
    }

    /// Takes the text apart; lines that are no samples are left out, and so are values that are no numbers.
    pub fn parse(text: &str) -> Self {
        let mut series: HashMap<String, Vec<Series>> = HashMap::new();
        for (name, labels, value) in text.lines().filter_map(sample).take(SERIES_LIMIT) {
            series.entry(name.to_owned()).or_default().push(Series { labels: labels.to_owned(), value });
        }
        Self { series }
    }

    /// The sum of all series of a name, over their labels; absent when there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_of(name, |_| true)
    }

    /// The same, of those that carry `label` with `value`.
    pub fn sum_where(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        // Within a value the quotes would be escaped, so this is found only where it is a label.
        let wanted = format!("{label}=\"{value}\"");
        self.sum_of(name, |labels| {
            labels.match_indices(&wanted).any(|(at, _)| at == 0 || labels[..at].ends_with([',', ' ']))
        })
    }

    fn sum_of(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let values = self.series.get(name)?.iter().filter(|series| wanted(&series.labels)).map(|series| series.value);
        values.reduce(|sum, value| sum + value)
    }
}

/// The name, labels and value of one line.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let line = line.trim();
    let end = line.find(|c: char| c == '{' || c.is_whitespace()).filter(|_| !line.starts_with('#'))?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        // Label values may hold spaces and braces; the value stands after the last brace.
        Some(labelled) => labelled.rsplit_once('}')?,
        None => ("", rest),
    };
    // A timestamp may follow.
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, labels, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "# HELP wait_seconds Time\n\
                        # TYPE wait_seconds histogram\n\
                        wait_seconds_bucket{le=\"0.1\"} 7\n\
                        wait_seconds_sum{model=\"a}b c\"} 1.5\n\
                        wait_seconds_sum{model=\"d\",state=\"on\"} 0.5 1700000000\n\
                        wait_seconds_sum{model=\"x,state=\\\"on\\\"\", other_state=\"on\"} 4\n\
                        wait_seconds_count 1\n\
                        wait_seconds_counter 9\n\
                        broken{a=\"b\n\
                        empty\n\
                        nothing NaN\n";

    #[test]
    fn series_are_summed_over_their_labels() {
        let page = Metrics::parse(PAGE);
        assert_eq!(page.sum("wait_seconds_sum"), Some(6.0));
        assert_eq!(page.sum("wait_seconds_count"), Some(1.0));
        for absent in ["wait_seconds", "broken", "empty", "nothing", "#"] {
            assert_eq!(page.sum(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_label_is_found_only_where_it_is_one() {
        let page = Metrics::parse(PAGE);
        assert_eq!(page.sum_where("wait_seconds_sum", "state", "on"), Some(0.5));
        assert_eq!(page.sum_where("wait_seconds_sum", "other_state", "on"), Some(4.0));
        assert_eq!(page.sum_where("wait_seconds_sum", "state", "off"), None);
        assert_eq!(page.sum_where("wait_seconds_count", "state", "on"), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(\\PC|\n|[{}\"=, #])*") {
            let page = Metrics::parse(&text);
            prop_assert!(page.series.values().flatten().all(|series| series.value.is_finite()));
        }
    }
}
