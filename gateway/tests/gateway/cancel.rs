//! A client that leaves: its work stops, its KV blocks come back, its ledger closes as cancelled.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::{TestGateway, endless, post_bytes};

const KV_USAGE: &str = "engine_kv_usage";

async fn blocks_in_use(gateway: &TestGateway) -> f64 {
    gateway.metric(KV_USAGE, "").await
}

/// Leaves, and waits until the gateway has taken note.
async fn leave(gateway: &TestGateway, socket: TcpStream) {
    drop(socket);
    gateway.until(async || blocks_in_use(gateway).await == 0.0).await;
    gateway.until(async || gateway.finished("cancelled").await == 1.0).await;
    gateway.until(async || gateway.metric("gateway_requests_active", "").await == 0.0).await;
    let others = ["stop", "length", "invalid", "error", "deadline", "overloaded"];
    for reason in others {
        assert_eq!(gateway.finished(reason).await, 0.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_in_the_middle_of_a_stream_frees_its_blocks() {
    let gateway = TestGateway::start().await;
    let mut socket = gateway.open(&endless()).await;
    let mut some = [0; 1024];
    socket.read_exact(&mut some).await.unwrap();
    gateway.until(async || blocks_in_use(&gateway).await > 0.0).await;
    leave(&gateway, socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_a_whole_answer_is_there_frees_its_blocks() {
    let gateway = TestGateway::start().await;
    let mut body = endless();
    body["stream"] = json!(false);
    let socket = gateway.open(&body).await;
    gateway.until(async || blocks_in_use(&gateway).await > 0.0).await;
    leave(&gateway, socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_the_body_is_sent_closes_the_ledger_too() {
    let gateway = TestGateway::start().await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    gateway.until(async || gateway.metric("gateway_requests_active", "waiting").await == 1.0).await;
    drop(socket);
    gateway.until(async || gateway.metric("gateway_requests_active", "").await == 0.0).await;
    gateway.until(async || gateway.finished("cancelled").await == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_stays_but_does_not_read_is_given_up() {
    let gateway = TestGateway::start_with(|config| {
        config.server.write_timeout = std::time::Duration::from_millis(100).into();
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(gateway.address).await.unwrap();
    let mut body = endless();
    body["logprobs"] = json!(20);
    socket.write_all(&post_bytes("/generate", body.to_string().as_bytes())).await.unwrap();
    gateway.until(async || gateway.finished("cancelled").await == 1.0).await;
    gateway.until(async || blocks_in_use(&gateway).await == 0.0).await;
    drop(socket);
}
