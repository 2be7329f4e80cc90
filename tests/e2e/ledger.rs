//! The ledger closes on every path: random requests that end in random ways, all at once.
//!
//! `LEDGER_SEED` replays the requests of a run that failed; it prints its own.

use std::{collections::BTreeMap, io::Write, net::SocketAddr};

use serde_json::{Value, json};
use tests::{
    PATIENCE,
    collector::Collector,
    gateway::{Gateway, Launch},
    trace::{PHASES, ReceivedSpan, Trace},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    requests::{Caller, last_event},
    traces::agrees,
};

const REQUESTS: u64 = 96;
const KEY: &str = "open-sesame";
const OUTCOMES: [&str; 7] = ["stop", "length", "cancelled", "deadline", "invalid", "overloaded", "error"];

/// How a client sends its request and when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Reads to the end.
    Stays,
    /// Reads to the end, but nothing before other requests had their turn.
    Dawdles,
    /// Has another key.
    Intrudes,
    /// Leaves after the head.
    LeavesBeforeBody,
    /// Leaves after half of the body.
    LeavesAmidBody,
    /// Leaves when all is sent: in the queue or amid prefill.
    LeavesUnanswered,
    /// Leaves after the first bytes of the answer: amid decode, or while the last bytes drain.
    LeavesAmidAnswer,
}

const MANNERS: [Manner; 10] = [
    Manner::Stays,
    Manner::Stays,
    Manner::Stays,
    Manner::Stays,
    Manner::Dawdles,
    Manner::Intrudes,
    Manner::LeavesBeforeBody,
    Manner::LeavesAmidBody,
    Manner::LeavesUnanswered,
    Manner::LeavesAmidAnswer,
];

#[derive(Debug, Clone)]
struct Planned {
    caller: Caller,
    manner: Manner,
    body: Vec<u8>,
}

/// Xorshift: a seed is all that a run depends on.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn body(&mut self) -> Vec<u8> {
        let mut body = json!({
            "prompt": "why ".repeat(1 + self.below(300) as usize),
            "max_tokens": 1 + self.below(40),
            "raw": true,
            "stream": self.below(2) == 0,
            "ignore_eos": self.below(2) == 0,
            "seed": self.below(1000),
        });
        match self.below(12) {
            0 => body["stop"] = json!(["e", "a", "t", "s"]),
            1 => body["max_tokens"] = 30_000.into(),
            2 => body["logprobs"] = 20.into(),
            3 => body["unheard_of"] = 1.into(),
            4 => body["model"] = "another".into(),
            5 => body["prompt"] = "x ".repeat(40_000).into(),
            6 => body["prompt"] = "x ".repeat(2 << 20).into(),
            7 => return b"{\"prompt\": ".to_vec(),
            _ => {}
        }
        body.to_string().into_bytes()
    }

    fn plan(&mut self, number: u64) -> Planned {
        let manner = MANNERS[self.below(MANNERS.len() as u64) as usize];
        Planned { caller: Caller::new(number), manner, body: self.body() }
    }
}

/// Sends a request as planned; gives all that came back, if the client stayed.
async fn carry_out(planned: &Planned, address: SocketAddr) -> std::io::Result<Option<Vec<u8>>> {
    let Planned { caller, manner, body } = planned;
    let key = if *manner == Manner::Intrudes { "wrong" } else { KEY };
    let head = format!(
        "POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {key}\r\ntraceparent: {}\r\ncontent-length: {}\r\n\r\n",
        caller.traceparent(),
        body.len()
    );
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(head.as_bytes()).await?;
    let sent = match manner {
        Manner::LeavesBeforeBody => &[],
        Manner::LeavesAmidBody => &body[..body.len() / 2],
        _ => &body[..],
    };
    // A gateway that refuses early need not read it all.
    let _ = socket.write_all(sent).await;
    let mut answer = Vec::new();
    match manner {
        Manner::LeavesBeforeBody | Manner::LeavesAmidBody | Manner::LeavesUnanswered => return Ok(None),
        Manner::LeavesAmidAnswer => {
            let _ = socket.read(&mut [0; 64]).await;
            return Ok(None);
        }
        Manner::Dawdles => {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        }
        Manner::Stays | Manner::Intrudes => {}
    }
    // A refused body that was not read to its end may cost the answer its last bytes.
    let _ = socket.read_to_end(&mut answer).await;
    Ok(Some(answer))
}

fn seed() -> u64 {
    let fresh = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64 | 1);
    let seed = std::env::var("LEDGER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(fresh);
    println!("LEDGER_SEED={seed}");
    seed
}

fn launch(collector: &Collector, keys: &std::path::Path) -> Launch {
    Gateway::traced(&collector.url())
        .flag("--api-keys-file", keys.display())
        .flag("--request-timeout", "2s")
        .flag("--max-batch", 4)
        .flag("--max-queue", 12)
        .flag("--max-step-tokens", 64)
}

/// Those that are of requests and not of the engine's steps.
fn of_requests(collector: &Collector) -> Vec<ReceivedSpan> {
    collector.spans().into_iter().filter(|span| span.name != "engine.step").collect()
}

/// The answer's numbers are the trace's, wherever they are told.
fn told_alike(answer: &str, trace: &Trace) {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return };
    let status = head.split(' ').nth(1).unwrap();
    assert_eq!(trace.server().unwrap().attribute("http.response.status_code"), Some(status));
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    assert!(header("x-request-id").is_some());
    assert!(header("traceresponse").unwrap().contains(&trace.server().unwrap().trace_id));
    if status != "200" {
        return;
    }
    let Some(last) = serde_json::from_str::<Value>(body).ok().or_else(|| last_event(body)) else { return };
    let Some(timings) = last.get("timings") else { return };
    agrees(trace, timings);
    let phases = timings["phases"].as_object().unwrap();
    let sum: f64 = phases.values().map(|phase| phase.as_f64().unwrap()).sum();
    assert!((sum - timings["total_ms"].as_f64().unwrap()).abs() < 1e-6, "{timings}");
    if let Some(header) = header("server-timing") {
        for (phase, millis) in phases {
            let entry = format!("{};dur={:.6}", phase.trim_end_matches("_ms"), millis.as_f64().unwrap());
            assert!(header.contains(&entry), "{entry} in {header}");
        }
    }
}

/// Counters and histograms are the sums over the traces.
async fn counted_alike(gateway: &Gateway, traces: &[Trace]) -> anyhow::Result<()> {
    let mut outcomes: BTreeMap<&str, f64> = BTreeMap::new();
    for trace in traces {
        *outcomes.entry(trace.operation().unwrap().attribute("gateway.outcome").unwrap()).or_default() += 1.0;
    }
    println!("outcomes: {outcomes:?}");
    for outcome in OUTCOMES {
        let series = format!("gateway_requests_finished_total{{reason=\"{outcome}\"}}");
        let expected = outcomes.get(outcome).copied().unwrap_or_default();
        assert_eq!(gateway.metric(&series).await?, Some(expected), "{series}");
    }
    for phase in PHASES {
        let spans: Vec<_> = traces
            .iter()
            .flat_map(|trace| &trace.spans)
            .filter(|span| span.name == phase)
            .filter_map(ReceivedSpan::exact_nanos)
            .collect();
        if spans.is_empty() {
            continue;
        }
        let series = |what: &str| format!("gateway_phase_duration_seconds_{what}{{phase=\"{phase}\"}}");
        assert_eq!(gateway.metric(&series("count")).await?, Some(spans.len() as f64), "{phase}");
        let (sum, expected) = (gateway.metric(&series("sum")).await?.unwrap(), spans.iter().sum::<u64>() as f64 / 1e9);
        assert!((sum - expected).abs() <= 1e-9 + 1e-9 * expected, "{phase}: {sum} {expected}");
    }
    for state in ["waiting", "running"] {
        gateway.wait_for_metric(&format!("gateway_requests_active{{state=\"{state}\"}}"), 0.0).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_closes_its_ledger_however_it_ends() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let mut keys = tempfile::NamedTempFile::new()?;
    writeln!(keys, "{KEY}")?;
    let gateway = launch(&collector, keys.path()).start().await?;
    let address: SocketAddr = gateway.url().trim_start_matches("http://").parse()?;
    let mut random = Random(seed());
    let planned: Vec<_> = (0..REQUESTS).map(|number| random.plan(number)).collect();
    let asking = planned.iter().cloned().map(|planned| {
        tokio::spawn(async move {
            let answer = timeout(2 * PATIENCE, carry_out(&planned, address)).await.expect("it ends");
            answer.unwrap_or_default()
        })
    });
    let answers = futures::future::try_join_all(asking).await?;

    let mut traces = Vec::new();
    for (planned, answer) in planned.iter().zip(answers) {
        let trace = collector.trace(&planned.caller.trace_id).await;
        let trace = trace.map_err(|error| error.context(format!("{:?}", planned.manner)))?;
        assert_eq!(trace.server().unwrap().parent, planned.caller.span_id);
        told_alike(&String::from_utf8_lossy(&answer.unwrap_or_default()), &trace);
        traces.push(trace);
    }
    assert_eq!(of_requests(&collector).len(), traces.iter().map(|trace| trace.spans.len()).sum::<usize>(), "no orphan");
    counted_alike(&gateway, &traces).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_leaves_no_trace_open() -> anyhow::Result<()> {
    let collector = Collector::http().await?;
    let mut keys = tempfile::NamedTempFile::new()?;
    writeln!(keys, "{KEY}")?;
    let gateway = launch(&collector, keys.path()).flag("--drain-timeout", "0s").start().await?;
    let address: SocketAddr = gateway.url().trim_start_matches("http://").parse()?;
    let mut random = Random(seed());
    let asking: Vec<_> = (0..REQUESTS)
        .map(|number| random.plan(number))
        .map(|planned| tokio::spawn(async move { carry_out(&planned, address).await }))
        .collect();
    collector.wait_for(|spans| !spans.is_empty()).await?;
    assert_eq!(gateway.stop().await?, Some(0));
    for asking in asking {
        // Whoever came too late was not let in.
        let _ = timeout(PATIENCE, asking).await??;
    }
    let spans = of_requests(&collector);
    for span in &spans {
        assert!(Trace::of(&span.trace_id, &spans).is_complete(), "{span:?}");
    }
    Ok(())
}
