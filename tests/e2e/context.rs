//! A caller's trace context is continued if it is one, and else passed over.

use std::io::Write;

use reqwest::header::{HeaderMap, HeaderValue};
use tests::{collector::Collector, gateway::Gateway};

use crate::requests::{Caller, body};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Asks with these headers; gives the trace that the answer names.
async fn ask(gateway: &Gateway, headers: &[(&'static str, &str)]) -> anyhow::Result<String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value)?);
    }
    let response = gateway.generate(&body(1)).headers(map).send().await?;
    assert_eq!(response.status(), 200, "{headers:?}");
    assert!(response.headers().contains_key("x-request-id"));
    let named = response.headers()["traceresponse"].to_str()?;
    Ok(named.split('-').nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_no_trace_context_begins_a_new_trace() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = Gateway::traced(&collector.url()).start().await?;
    let zeros = ("0".repeat(32), "0".repeat(16));
    let malformed = [
        String::new(),
        "garbage".to_owned(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("0-{TRACE}-{SPAN}-01"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        format!("00-0{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &SPAN[1..]),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-0G"),
        format!("00-{}-{SPAN}-01", zeros.0),
        format!("00-{TRACE}-{}-01", zeros.1),
        format!("00-+{}-{SPAN}-01", &TRACE[1..]),
    ];
    for parent in &malformed {
        let trace = ask(&gateway, &[("traceparent", parent)]).await?;
        assert!(trace != TRACE && trace != TRACE.to_uppercase() && trace != zeros.0, "{parent}");
        assert_eq!(collector.trace(&trace).await?.server().unwrap().parent, "", "{parent}");
    }
    let valid = Caller::new(7).traceparent();
    let trace = ask(&gateway, &[("traceparent", &valid), ("traceparent", &valid)]).await?;
    assert_ne!(trace, Caller::new(7).trace_id, "two are none");

    let later = format!("cc-{TRACE}-{SPAN}-01-what-is-to-come");
    assert_eq!(ask(&gateway, &[("traceparent", &later)]).await?, TRACE);
    assert_eq!(collector.trace(TRACE).await?.server().unwrap().parent, SPAN);
    Ok(())
}

#[tokio::test]
async fn the_vendors_state_travels_with_the_trace_unless_it_is_too_long() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let gateway = Gateway::traced(&collector.url()).start().await?;
    let many = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
    let long = format!("k={},l={}", "v".repeat(255), "v".repeat(255));
    let cases: [(&[&str], &str); 5] = [
        (&["congo=t61rcWkgMzE"], "congo=t61rcWkgMzE"),
        (&["a=1,b=2", "c=3"], "a=1,b=2,c=3"),
        (&[&many], ""),
        (&[&long], ""),
        (&["no list"], ""),
    ];
    for (number, (lists, expected)) in (100..).zip(cases) {
        let caller = Caller::new(number);
        let parent = caller.traceparent();
        let mut headers = vec![("traceparent", parent.as_str())];
        headers.extend(lists.iter().map(|list| ("tracestate", *list)));
        assert_eq!(ask(&gateway, &headers).await?, caller.trace_id);
        let trace = collector.trace(&caller.trace_id).await?;
        assert_eq!(trace.server().unwrap().state, expected, "{lists:?}");
    }
    Ok(())
}

#[tokio::test]
async fn of_baggage_what_is_asked_for_is_kept_and_no_more() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "[telemetry]\nbaggage_attributes = ['session.id', 'tenant']")?;
    let gateway = Gateway::traced(&collector.url()).flag("--config", file.path().display()).start().await?;
    let long = "é".repeat(200);
    let cases: [(&str, Option<&str>, Option<&str>); 5] = [
        ("session.id=s%201,user=u", Some("s 1"), None),
        ("tenant=t;ttl=1, session.id=s", Some("s"), Some("t")),
        (&format!("session.id={}", long.replace('é', "%C3%A9")), Some(&long[..256]), None),
        ("session.id", None, None),
        (",;=%ZZ,=,", None, None),
    ];
    for (baggage, session, tenant) in cases {
        let trace = collector.trace(&ask(&gateway, &[("baggage", baggage)]).await?).await?;
        let operation = trace.operation().unwrap();
        let found = (operation.attribute("session.id"), operation.attribute("tenant"));
        assert_eq!(found, (session, tenant), "{baggage}");
        assert_eq!(operation.attribute("user"), None);
    }
    Ok(())
}
