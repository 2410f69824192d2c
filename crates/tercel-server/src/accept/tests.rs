use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::routing::{get, post};
use bytes::Bytes;
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::*;
use crate::app::App;
use crate::config::{Config, Limits};
use crate::log::Log;
use crate::models::Models;

/// A server of some routes, and how many of the bodies it sends are held by somebody.
struct Served {
    address: SocketAddr,
    stage: watch::Sender<Stage>,
    task: tokio::task::JoinHandle<()>,
    held: Arc<AtomicUsize>,
}

impl Served {
    async fn new(limits: Limits) -> Self {
        let mut config = Config {
            limits,
            ..Default::default()
        };
        config.log.target = None;
        let (models, log) = (
            Models::new(&config).unwrap(),
            Log::new(&config.log).unwrap(),
        );
        let app = Arc::new(App::new(config, models, log));
        let held = Arc::new(AtomicUsize::new(0));
        let endless = held.clone();
        let slow = held.clone();
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/echo", post(async |body: Bytes| body))
            .route(
                "/endless",
                get(async move || Body::new(Endless(Held::new(&endless)))),
            )
            .route(
                "/slow",
                get(async move || {
                    let held = Held::new(&slow);
                    sleep(Duration::from_millis(1500)).await;
                    drop(held);
                    "done"
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stage, stages) = watch::channel(Stage::Serving);
        let task = tokio::spawn(async move { serve(listener, &app, &router, stages).await });
        Self {
            address,
            stage,
            task,
            held,
        }
    }

    async fn send(&self, text: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(text.as_bytes()).await.unwrap();
        client
    }

    async fn get(&self, path: &str) -> TcpStream {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await
    }

    async fn until_held(&self, count: usize, within: Duration) {
        let reached = async {
            while self.held.load(Ordering::Relaxed) != count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(within, reached).await.expect("in time");
    }
}

struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Endless(#[expect(dead_code, reason = "counted when it is dropped")] Held);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'a'; 4096])))))
    }
}

const SOON: Duration = Duration::from_secs(10);

async fn rest(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that was cut off may end with an error; what came before counts.
    let _ = timeout(SOON, client.read_to_end(&mut text))
        .await
        .expect("an end");
    String::from_utf8(text).unwrap()
}

async fn first_line(client: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(
            timeout(SOON, client.read_u8())
                .await
                .expect("a line")
                .unwrap(),
        );
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let served = Served::new(Limits::default()).await;
    let mut client = served.get("/").await;
    let ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.write_all(ask).await.unwrap();
    let text = rest(&mut client).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_dropped_and_frees_its_request() {
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let served = Served::new(limits).await;
    let start = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(served.get("/endless").await);
    }
    served.until_held(4, SOON).await;
    let one_by_one = async {
        loop {
            for client in &mut clients {
                let _ = client.read_u8().await;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = one_by_one => {}
        () = served.until_held(0, SOON) => {}
    }
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_peer_that_goes_away_frees_its_request() {
    let served = Served::new(Limits::default()).await;
    for path in ["/endless", "/slow"] {
        let client = served.get(path).await;
        served.until_held(1, SOON).await;
        drop(client);
        // Before the handler of `/slow` would have ended by itself.
        served.until_held(0, Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_after_more_than_its_request_frees_it_too() {
    let served = Served::new(Limits::default()).await;
    let ask = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let client = served.send(ask).await;
    served.until_held(1, SOON).await;
    drop(client);
    // Before the handler of `/slow` would have ended by itself.
    served.until_held(0, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn heads_are_bounded_in_size_number_and_time() {
    let limits = Limits {
        read_timeout: Duration::from_millis(200),
        ..Default::default()
    };
    let served = Served::new(limits).await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "a".repeat(40 << 10)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "x: y\r\n".repeat(101)
    );
    let fits = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n",
        "a".repeat(20 << 10)
    );
    for (request, status) in [(long, "431"), (many, "431"), (fits, "200")] {
        let mut client = served.send(&request).await;
        let line = first_line(&mut client).await;
        assert!(line.contains(status), "{status}: {line}");
    }
    for unfinished in ["", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let start = Instant::now();
        let mut client = served.send(unfinished).await;
        rest(&mut client).await;
        let took = start.elapsed();
        assert!((200..5000).contains(&took.as_millis()), "{took:?}");
    }
}

#[tokio::test]
async fn garbage_is_a_400() {
    let served = Served::new(Limits::default()).await;
    for garbage in [
        "\x16\x03\x01\x02\r\n\r\n",
        "GET\r\n\r\n",
        "a b c d e\r\n\r\n",
    ] {
        let mut client = served.send(garbage).await;
        let text = rest(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    }
    assert!(first_line(&mut served.get("/").await).await.contains("200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let served = Served::new(Limits {
        connections: 1,
        ..Default::default()
    })
    .await;
    let first = served.get("/endless").await;
    served.until_held(1, SOON).await;
    let mut second = served.get("/").await;
    let early = timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert!(first_line(&mut second).await.contains("200"));
}

#[tokio::test]
async fn a_request_that_runs_may_end_and_idle_connections_do_not_wait() {
    let served = Served::new(Limits::default()).await;
    let mut idle = served.get("/").await;
    first_line(&mut idle).await;
    let silent = served.send("").await;
    let mut client = served.get("/slow").await;
    served.until_held(1, SOON).await;
    served.stage.send(Stage::Draining).unwrap();
    let text = rest(&mut client).await;
    assert!(
        text.starts_with("HTTP/1.1 200") && text.ends_with("done"),
        "{text}"
    );
    timeout(Duration::from_secs(1), served.task)
        .await
        .expect("an end")
        .unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    drop(silent);
}

#[tokio::test]
async fn what_outlasts_the_grace_time_is_cut_off() {
    let grace = Duration::from_millis(200);
    let served = Served::new(Limits {
        grace,
        ..Default::default()
    })
    .await;
    let _client = served.get("/endless").await;
    served.until_held(1, SOON).await;
    let start = Instant::now();
    served.stage.send(Stage::Draining).unwrap();
    timeout(SOON, served.task).await.expect("an end").unwrap();
    assert!(start.elapsed() >= grace, "{:?}", start.elapsed());
    assert_eq!(served.held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_second_stop_does_not_wait() {
    let grace = Duration::from_secs(600);
    let served = Served::new(Limits {
        grace,
        ..Default::default()
    })
    .await;
    let _client = served.get("/endless").await;
    served.until_held(1, SOON).await;
    served.stage.send(Stage::Draining).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert!(!served.task.is_finished());
    served.stage.send(Stage::Ending).unwrap();
    timeout(SOON, served.task).await.expect("an end").unwrap();
}
