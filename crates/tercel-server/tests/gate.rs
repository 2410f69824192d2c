//! Who gets in, over a real connection.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tercel_server::{Config, Role, Server, ServerError, StopHandle};

const USER: &str = "secret-of-the-user-1";
const ADMIN: &str = "secret-of-the-admin-1";

/// A server without models, which ends with the test.
struct Running {
    address: SocketAddr,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Running {
    fn new(mut config: Config) -> Self {
        config.log.target = None;
        let server = Server::bind(config, "127.0.0.1:0".parse().expect("works")).expect("works");
        let (address, stop) = (server.address(), server.stop_handle());
        Self {
            address,
            stop,
            thread: Some(std::thread::spawn(move || server.run())),
        }
    }

    /// The status of an answer, and the code and the message of its error.
    fn ask(&self, head: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        let mut text = format!("{head} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            write!(text, "Host: {}\r\n", self.address).expect("works");
        }
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").expect("works");
        }
        write!(text, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("works");
        let mut stream = TcpStream::connect(self.address).expect("works");
        stream.write_all(text.as_bytes()).expect("works");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("works");
        let (head, body) = answer.split_once("\r\n\r\n").expect("works");
        assert!(head.contains("\r\nx-request-id: "), "{head}");
        assert!(
            head.contains("\r\nx-content-type-options: nosniff"),
            "{head}"
        );
        let status = head
            .split(' ')
            .nth(1)
            .expect("works")
            .parse()
            .expect("works");
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let part = |name| body["error"][name].as_str().unwrap_or_default().to_owned();
        (status, part("code"), part("message"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("works").expect("works").expect("works");
        }
    }
}

fn with_keys() -> Config {
    let mut config = Config::default();
    config
        .keys
        .insert("k_user_1", Role::User, USER)
        .expect("works");
    config
        .keys
        .insert("k_admin_1", Role::Admin, ADMIN)
        .expect("works");
    config
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("works");
    now.as_secs().try_into().expect("works")
}

#[test]
fn refusals_come_in_the_books_order() {
    let server = Running::new(with_keys());
    let path = "/admin/nowhere?a=1";
    let ask = |id: &str, secret: &str, time: i64, leave_out: usize| {
        let hash = hex(&Sha256::digest("{}"));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("works");
        mac.update(format!("POST\n{path}\n{time}\n{hash}").as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        let (key, time) = (format!("ApiKey {id}"), time.to_string());
        let mut headers = vec![
            ("X-Signature", &*signature),
            ("X-Timestamp", &*time),
            ("Authorization", &*key),
        ];
        headers.drain(..leave_out);
        let (status, _, message) = server.ask(&format!("POST {path}"), &headers, "{}");
        (status, message)
    };
    let refused = |message: &str| (401, message.to_owned());
    assert_eq!(ask("k_user_1", USER, now(), 3), refused("Missing API key"));
    assert_eq!(ask("k_none", USER, now(), 2), refused("Invalid API key"));
    assert_eq!(
        ask("k_user_1", USER, now(), 2),
        refused("Missing signature headers")
    );
    assert_eq!(ask("k_user_1", USER, -1, 0), refused("Bad timestamp"));
    assert_eq!(
        ask("k_user_1", USER, now() - 62, 0),
        refused("Stale request")
    );
    assert_eq!(ask("k_user_1", ADMIN, now(), 0), refused("Bad signature"));
    assert_eq!(
        ask("k_user_1", USER, now(), 0),
        (403, "Forbidden".to_owned())
    );
    let time = now();
    assert_eq!(ask("k_admin_1", ADMIN, time, 0).0, 404);
    assert_eq!(
        ask("k_admin_1", ADMIN, time, 0),
        refused("Replayed request")
    );
}

#[test]
fn a_page_of_another_site_gets_nothing() {
    let server = Running::new(Config::default());
    let (own, address) = (
        format!("http://{}", server.address),
        server.address.to_string(),
    );
    let port = server.address.port();
    let rebound = (
        format!("evil.example:{port}"),
        format!("http://evil.example:{port}"),
    );
    for (host, origin, status, code) in [
        (&*address, &*own, 200, ""),
        (&*address, "http://evil.example", 403, "origin_not_allowed"),
        (&*address, "null", 403, "origin_not_allowed"),
        (&*rebound.0, &*rebound.1, 403, "host_not_allowed"),
    ] {
        let headers = [("Host", host), ("Origin", origin)];
        let (found, error, _) = server.ask("GET /v1/models", &headers, "");
        assert_eq!((found, &*error), (status, code), "{host} {origin}");
    }
}

#[test]
fn without_keys_nobody_administers() {
    let server = Running::new(Config::default());
    for path in ["/admin/reload", "/admin/models", "/admin/nowhere"] {
        let bearer = format!("Bearer {ADMIN}");
        let (status, code, _) = server.ask(
            &format!("POST {path}"),
            &[("Authorization", &*bearer)],
            "{}",
        );
        assert_eq!((status, &*code), (403, "forbidden"), "{path}");
    }
    let ended = Server::bind(Config::default(), "0.0.0.0:0".parse().expect("works"));
    assert!(matches!(ended, Err(ServerError::NoKeys { .. })));
}
