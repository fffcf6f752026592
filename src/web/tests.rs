#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, readiness, shutdown) = (
        server.address(),
        Readiness::default(),
        CancellationToken::new(),
    );
    let site = Site {
        metrics: Arc::new(Metrics::new()),
        readiness: readiness.clone(),
        autoconfig: None,
        enrolment: None,
    };
    let task = tokio::spawn(server.run(site, shutdown.clone()));
    Running {
        address,
        readiness,
        shutdown,
        task,
    }
}

/// The whole answer; the server closes.
async fn request(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_follows_the_life_of_the_gateway() {
    let server = start().await;
    let ready = async || request(server.address, "GET /ready").await;
    assert!(
        request(server.address, "GET /live")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(ready().await.starts_with("HTTP/1.1 503 "));
    server.readiness.ready();
    assert!(ready().await.starts_with("HTTP/1.1 200 "));
    server.readiness.draining();
    server.readiness.ready();
    let draining = ready().await;
    assert!(
        draining.starts_with("HTTP/1.1 503 ") && draining.ends_with("draining\n"),
        "{draining}"
    );
    assert!(
        request(server.address, "GET /live")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    server.shutdown.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let server = start().await;
    let answer = request(server.address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains("content-type: application/openmetrics-text"),
        "{answer}"
    );
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn there_is_nothing_else() {
    let server = start().await;
    assert!(
        request(server.address, "GET /")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        request(server.address, "GET /metrics/../x")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        request(server.address, "POST /metrics")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out() {
    let server = start().await;
    let mut silent = Vec::new();
    for _ in 0..bounded::CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    for _ in 0..3 {
        let answer = request(server.address, "GET /live").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // The oldest had to go; the youngest is heard.
    let mut rest = Vec::new();
    let _ = silent.remove(0).read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
    let mut youngest = silent.pop().unwrap();
    let line = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
    youngest.write_all(line).await.unwrap();
    let mut answer = String::new();
    youngest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends() {
    let server = start().await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_key() {
    let server = start().await;
    let error = Server::bind(server.address).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("http: {}: address in use", server.address)
    );
}
