//! Servers that mean no good, at the level of the socket: each run ends in time, and says what happened.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const TOKEN: &str = "data: {\"index\":0,\"text\":\"a\",\"token_ids\":[1]}\n\n";

/// What a server sends when it is asked to generate.
#[derive(Clone, Copy)]
enum Answer {
    /// This, and then the connection's end.
    Once(&'static str),
    /// This, and then the other for ever.
    Forever(&'static str, &'static str),
    /// This, and then nothing.
    Silence(&'static str),
}

/// A server whose probes are answered well.
fn serve(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://me:hunter2@{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || serve_one(connection, answer));
        }
    });
    url
}

/// Ends when the other side does.
fn serve_one(mut connection: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..count]);
        if !request.windows(4).any(|end| end == b"\r\n\r\n") {
            continue;
        }
        if !request.starts_with(b"POST /generate") {
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            request.clear();
            continue;
        }
        match answer {
            Answer::Once(text) => return connection.write_all(text.as_bytes()),
            Answer::Forever(first, again) => {
                connection.write_all(first.as_bytes())?;
                loop {
                    connection.write_all(again.as_bytes())?;
                }
            }
            Answer::Silence(text) => {
                connection.write_all(text.as_bytes())?;
                // Until the other side is gone.
                while connection.read(&mut buffer)? > 0 {}
                return Ok(());
            }
        }
    }
}

/// The report of a short run, and all that was printed.
fn run(answer: Answer) -> (Value, String) {
    let flags = ["--users", "2", "--spawn-rate", "100", "--run-time", "1s", "--grace", "1s", "--json", "-", "--quiet"];
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    let command = command.args(flags).env("LOADGEN_HOST", serve(answer)).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    let output = command.output().unwrap();
    let printed = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "run time and grace are two seconds");
    assert!(!printed.contains("hunter2"), "{printed}");
    (serde_json::from_slice(&output.stdout).expect(&printed), printed)
}

#[test]
fn what_happened_has_a_class() {
    let gzip =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\nno";
    let short =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: {\"text\":\"a\"}\n\n";
    let redirect = "HTTP/1.1 307 T\r\nlocation: http://me:hunter2@127.0.0.1:1/?hunter2\r\ncontent-length: 0\r\n\r\n";
    let malformed = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {oops\n\n";
    for (answer, class) in [
        (Answer::Once(""), "closed"),
        (Answer::Once(short), "closed"),
        (Answer::Once("SSH-2.0-OpenSSH\r\n"), "protocol"),
        (Answer::Once(gzip), "content_encoding"),
        (Answer::Once(redirect), "redirect"),
        (Answer::Once(malformed), "malformed_event"),
        (Answer::Once(STREAM), "truncated"),
        (Answer::Forever("HTTP/1.1 200 OK\r\n", "a: b\r\n"), "headers_too_large"),
        (Answer::Forever(STREAM, TOKEN), "too_large"),
    ] {
        let (report, printed) = run(answer);
        assert_eq!(report["errors"][0]["class"], class, "{printed}");
    }
}

#[test]
fn what_is_still_open_after_the_grace_is_cut_and_said_so() {
    for answer in [Answer::Silence(""), Answer::Silence(STREAM), Answer::Forever(STREAM, ": x\n\n")] {
        let (report, printed) = run(answer);
        assert_eq!((&report["requests"]["cut"], &report["requests"]["failed"]), (&2.into(), &0.into()), "{printed}");
        assert!(printed.contains("2 still open 1 s after the run time"), "{printed}");
    }
}

#[test]
fn figures_that_cannot_be_are_named_and_left_out() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; Charset=UTF-8\r\nconnection: close\r\n\r\n\
                  data: {\"text\":\"a\",\"token_ids\":[1]}\n\ndata: {\"text\":\"\",\"finish_reason\":\"stop\",\
                  \"usage\":{\"prompt_tokens\":9223372036854775808,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
    let (report, printed) = run(Answer::Once(answer));
    assert_eq!(report["throughput"]["input_tokens_per_s"], 0.0, "{printed}");
    assert_eq!(report["analysis"]["bottleneck"]["id"], "implausible", "{printed}");
    assert!(printed.contains("usage.prompt_tokens is 9223372036854775808"), "{printed}");
}

#[test]
fn what_would_steer_a_terminal_is_shown_escaped() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
                  event: error\ndata: {\"error\":{\"message\":\"a\u{202e}b\\u001b[31m\u{2066}\"}}\n\n";
    let (_, printed) = run(Answer::Once(answer));
    assert!(printed.contains("a\\u{202e}b\\u{1b}[31m\\u{2066}") && !printed.contains('\u{202e}'), "{printed}");
}
