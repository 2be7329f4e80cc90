//! Loading, draining, and failing to load.

use gateway::{config::Seconds, server, state::App, telemetry::Telemetry};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::support::{TestGateway, config, endless, post_bytes, read_answer};

#[tokio::test]
async fn while_the_model_loads_the_gateway_lives_but_is_not_ready() {
    let telemetry = Telemetry::init(&Default::default()).unwrap();
    let app = App::new(Default::default(), telemetry).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server::serve(listener, app, stop.clone()));
    let send = async |request: Vec<u8>| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&request).await.unwrap();
        read_answer(socket).await
    };
    let get = async |path: &str| {
        send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into()).await
    };
    assert_eq!(get("/health/live").await.status, 200);
    let ready = get("/health/ready").await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "loading"));
    assert_eq!(get("/health").await.json()["status"], "loading");
    let refused = send(post_bytes("/generate", b"{\"prompt\":\"x\"}")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "model_loading");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    std::fs::write(&config.model.name, b"GGUF, but not for long").unwrap();
    for name in [config.model.name.clone(), "/nowhere/model.gguf".to_owned()] {
        config.model.name = name.clone();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let telemetry = Telemetry::init(&config.telemetry).unwrap();
        let error = gateway::run(config.clone(), telemetry, listener, CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_lets_streams_end_and_takes_no_more() {
    let gateway = TestGateway::start_with(|config| config.server.drain_timeout = Seconds::new(60)).await;
    let mut body = endless();
    body["max_tokens"] = json!(2000);
    let mut stream = gateway.open(&body).await;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    gateway.stop.cancel();
    gateway.until_closed().await;

    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("[DONE]"), "the stream ran to its end");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_the_drain_time_is_told_so() {
    let gateway = TestGateway::start_with(|config| config.server.drain_timeout = Seconds::new(0)).await;
    let mut stream = gateway.open(&endless()).await;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    gateway.stop.cancel();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("event: error") && rest.contains("shutting_down") && !rest.contains("[DONE]"), "{rest}");
    gateway.stop().await;
}
