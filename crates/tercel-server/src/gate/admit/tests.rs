use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::*;
use crate::config::{Config, Rate};
use crate::gate::Role;
use crate::log::Log;
use crate::models::Models;

const USER: &str = "secret-of-the-user-1";
const ADMIN: &str = "secret-of-the-admin-1";

fn with_keys() -> Config {
    let mut config = Config::default();
    config.keys.insert("k_user_1", Role::User, USER).unwrap();
    config.keys.insert("k_admin_1", Role::Admin, ADMIN).unwrap();
    config
}

fn app(mut config: Config) -> Shared {
    config.log.target = None;
    let (models, log) = (
        Models::new(&config).unwrap(),
        Log::new(&config.log).unwrap(),
    );
    Arc::new(App::new(config, models, log))
}

fn router(app: &Shared) -> Router {
    let who =
        async |caller: Caller| format!("{} {:?}", caller.key_id.unwrap_or_default(), caller.role);
    let echo = async |State(app): State<Shared>, request: Request| {
        crate::body::read(request, app.config.limits.body_bytes).await
    };
    async fn fault() -> &'static str {
        panic!("a fault, for the test")
    }
    Router::new()
        .route("/", get(who))
        .route("/page/{*file}", get(who))
        .route("/healthz", get(who))
        .route("/readyz", get(who))
        .route("/metrics", get(who))
        .route("/v1/models", get(who))
        .route("/v1/messages", post(who))
        .route("/v1/chat", post(echo))
        .route("/admin/reload", post(who))
        .route("/fault", get(fault))
        .route("/api/fault", get(fault))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path"))
        .layer(from_fn_with_state(app.clone(), admit))
        .with_state(app.clone())
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn send(router: &Router, request: Request) -> (StatusCode, Response, Bytes) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (
        parts.status,
        Response::from_parts(parts, Body::empty()),
        body,
    )
}

/// The status, and the message of an error or the text of an answer.
async fn told(router: &Router, request: Request) -> (u16, String) {
    let (status, _, body) = send(router, request).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    let message = serde_json::from_str::<Value>(&text).ok();
    let message = message
        .as_ref()
        .and_then(|it| it.pointer("/error/message")?.as_str());
    (
        status.as_u16(),
        message.map_or_else(|| text.clone(), str::to_owned),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    now.as_secs().try_into().unwrap()
}

/// A request as the client of 13.5 signs it.
fn signed(id: &str, secret: &str, method: &str, path: &str, time: i64, body: &str) -> Request {
    let hash = hex(&Sha256::digest(body));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{method}\n{path}\n{time}\n{hash}").as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    let (key, time) = (format!("ApiKey {id}"), time.to_string());
    let headers = [
        ("authorization", key.as_str()),
        ("x-timestamp", &time),
        ("x-signature", &signature),
    ];
    request(method, path, &headers).map(|_| Body::from(body.to_owned()))
}

#[tokio::test]
async fn without_keys_all_may_ask_but_none_may_administer() {
    let router = router(&app(Config::default()));
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/nowhere", 404),
        ("POST", "/admin/reload", 403),
        ("POST", "/admin/nowhere", 403),
    ] {
        let bearer = format!("Bearer {ADMIN}");
        for headers in [&[][..], &[("authorization", &*bearer)]] {
            let (found, text) = told(&router, request(method, path, headers)).await;
            assert_eq!(found, status, "{path}: {text}");
            if status == 200 {
                assert_eq!(text, " User", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn keys_open_what_their_role_may() {
    let router = router(&app(with_keys()));
    let (user, admin) = (format!("Bearer {USER}"), format!("bearer  {ADMIN}"));
    let none: &[(&str, &str)] = &[];
    for (method, path, headers, status, text) in [
        ("GET", "/", none, 200, " User"),
        ("GET", "/page/chat.js", none, 200, " User"),
        ("GET", "/healthz", none, 200, " User"),
        ("GET", "/readyz", none, 200, " User"),
        ("GET", "/metrics", none, 401, "Missing API key"),
        ("GET", "/nowhere", none, 401, "Missing API key"),
        ("POST", "/admin/reload", none, 401, "Missing API key"),
        (
            "GET",
            "/v1/models",
            &[("authorization", &*user)],
            200,
            "k_user_1 User",
        ),
        (
            "GET",
            "/v1/models",
            &[("authorization", &*admin)],
            200,
            "k_admin_1 Admin",
        ),
        (
            "GET",
            "/v1/models",
            &[("x-api-key", USER)],
            200,
            "k_user_1 User",
        ),
        (
            "GET",
            "/v1/models",
            &[("x-api-key", "wrong")],
            401,
            "Invalid API key",
        ),
        (
            "GET",
            "/v1/models",
            &[("x-api-key", "")],
            401,
            "Missing API key",
        ),
        (
            "GET",
            "/v1/models",
            &[("authorization", "Bearer")],
            401,
            "Missing API key",
        ),
        (
            "GET",
            "/v1/models",
            &[("authorization", "Bearer x")],
            401,
            "Invalid API key",
        ),
        (
            "GET",
            "/v1/models",
            &[("authorization", "Basic x")],
            401,
            "Missing API key",
        ),
        (
            "GET",
            "/v1/models",
            &[("authorization", "Bearer k_user_1")],
            401,
            "Invalid API key",
        ),
        (
            "POST",
            "/admin/reload",
            &[("authorization", &*user)],
            403,
            "Forbidden",
        ),
        (
            "POST",
            "/admin/reload",
            &[("authorization", &*admin)],
            200,
            "k_admin_1 Admin",
        ),
    ] {
        let found = told(&router, request(method, path, headers)).await;
        assert_eq!(
            found,
            (status, text.to_owned()),
            "{method} {path} {headers:?}"
        );
    }
    let (_, response, _) = send(&router, request("GET", "/v1/models", none)).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn signed_requests_are_refused_in_the_books_order() {
    let router = router(&app(with_keys()));
    let (body, now) = (r#"{"prompt":"a"}"#, now());
    let sign = |id, secret, time| signed(id, secret, "POST", "/v1/chat", time, body);
    let without = |name: &str| {
        let mut request = sign("k_user_1", USER, now);
        request.headers_mut().remove(name);
        request
    };
    let with = |mut request: Request, name: &'static str, value: &'static str| {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        request
    };
    for (request, status, message) in [
        (without("authorization"), 401, "Missing API key"),
        // Each is wrong in all that is checked later too.
        (
            with(without("x-signature"), "authorization", "ApiKey k_none"),
            401,
            "Invalid API key",
        ),
        (
            with(without("x-signature"), "x-timestamp", "x"),
            401,
            "Missing signature headers",
        ),
        (without("x-timestamp"), 401, "Missing signature headers"),
        (
            with(sign("k_user_1", ADMIN, now), "x-timestamp", "x"),
            401,
            "Bad timestamp",
        ),
        (sign("k_user_1", ADMIN, now - 62), 401, "Stale request"),
        (sign("k_user_1", ADMIN, now + 62), 401, "Stale request"),
        (sign("k_user_1", ADMIN, now), 401, "Bad signature"),
        (
            signed("k_user_1", ADMIN, "POST", "/admin/reload", now, body),
            401,
            "Bad signature",
        ),
        (
            signed("k_user_1", USER, "POST", "/admin/reload", now, body),
            403,
            "Forbidden",
        ),
        (
            signed("k_admin_1", ADMIN, "POST", "/admin/reload", now, body),
            200,
            "k_admin_1 Admin",
        ),
        // The handler gets the body that was read for the signature.
        (sign("k_user_1", USER, now), 200, body),
        (sign("k_user_1", USER, now), 401, "Replayed request"),
        (sign("k_user_1", USER, now - 1), 200, body),
        (sign("k_admin_1", ADMIN, now), 200, body),
    ] {
        assert_eq!(told(&router, request).await, (status, message.to_owned()));
    }
}

#[tokio::test]
async fn a_signed_body_is_bounded_in_size_and_time() {
    let mut config = with_keys();
    config.limits.body_bytes = 8;
    config.limits.read_timeout = Duration::from_millis(50);
    let router = router(&app(config));
    let large = signed("k_user_1", USER, "POST", "/v1/chat", now(), "123456789");
    assert_eq!(told(&router, large).await.0, 413);
    for headers in [
        &[("x-api-key", USER)][..],
        &[("authorization", "ApiKey k_user_1")],
    ] {
        let mut late = request("POST", "/v1/chat", headers);
        let time = HeaderValue::from_str(&now().to_string()).unwrap();
        late.headers_mut().insert("x-timestamp", time);
        late.headers_mut()
            .insert("x-signature", HeaderValue::from_static("00"));
        let never = std::future::pending::<Result<Bytes, std::io::Error>>();
        let late = late.map(|_| Body::new(Never(Box::pin(never))));
        assert_eq!(
            told(&router, late).await,
            (408, "the body did not arrive in time".into())
        );
    }
}

/// A body of which nothing comes.
struct Never(std::pin::Pin<Box<dyn Future<Output = Result<Bytes, std::io::Error>> + Send>>);

impl http_body::Body for Never {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        self.0
            .as_mut()
            .poll(context)
            .map(|bytes| Some(bytes.map(http_body::Frame::data)))
    }
}

#[tokio::test]
async fn rates_are_by_key_else_by_address_and_spare_probes() {
    let mut config = with_keys();
    config.rates.client = Some(Rate {
        per_second: 0.001,
        capacity: 2.0,
    });
    let router = router(&app(config));
    let ask = |key: &str| request("GET", "/v1/models", &[("x-api-key", key)]);
    assert_eq!(told(&router, ask(USER)).await.0, 200);
    assert_eq!(told(&router, ask(USER)).await.0, 200);
    let (status, response, body) = send(&router, ask(USER)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1000");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "rate_limited");
    assert_eq!(body["error"]["scope"], "client");
    assert_eq!(told(&router, ask(ADMIN)).await.0, 200);
    for path in ["/healthz", "/readyz", "/", "/page/a"].repeat(5) {
        assert_eq!(told(&router, request("GET", path, &[])).await.0, 200);
    }

    let config = Config {
        rates: crate::Rates {
            client: Some(Rate {
                per_second: 0.001,
                capacity: 1.0,
            }),
            global: None,
        },
        ..Default::default()
    };
    let router = self::router(&app(config));
    let from = |address: &str, key: &str| {
        let mut request = ask(key);
        let peer: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(Peer(peer));
        request
    };
    assert_eq!(told(&router, from("10.0.0.1:1000", "a")).await.0, 200);
    // A key that nobody checks makes no other client.
    assert_eq!(told(&router, from("10.0.0.1:1001", "b")).await.0, 429);
    assert_eq!(told(&router, from("10.0.0.2:1000", "a")).await.0, 200);
}

#[tokio::test]
async fn hosts_and_origins_come_before_all_else() {
    let mut config = with_keys();
    config.allowed_origins = vec!["https://app.example".into()];
    let router = router(&app(config));
    for (headers, status, code) in [
        (vec![("host", "evil.example")], 403, "host_not_allowed"),
        (
            vec![("origin", "http://evil.example")],
            403,
            "origin_not_allowed",
        ),
        (vec![("origin", "null")], 403, "origin_not_allowed"),
        (
            vec![("origin", "https://app.example")],
            401,
            "missing_api_key",
        ),
        (
            vec![("origin", "http://localhost:8080")],
            401,
            "missing_api_key",
        ),
    ] {
        let (found, response, body) = send(&router, request("GET", "/v1/models", &headers)).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (found.as_u16(), body["error"]["code"].as_str()),
            (status, Some(code))
        );
        let allowed = response.headers().get("access-control-allow-origin");
        let is_ours = headers.contains(&("origin", "https://app.example"));
        assert_eq!(allowed.is_some(), is_ours, "{headers:?}");
    }
    let preflight = |origin| {
        request(
            "OPTIONS",
            "/v1/models",
            &[
                ("origin", origin),
                ("access-control-request-method", "POST"),
            ],
        )
    };
    let (status, response, _) = send(&router, preflight("https://app.example")).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://app.example"
    );
    assert_eq!(
        told(&router, preflight("https://evil.example")).await.0,
        403
    );
}

#[tokio::test]
async fn every_answer_is_named_and_safe_for_browsers() {
    let router = router(&app(Config::default()));
    let mut ids = std::collections::HashSet::new();
    for (path, host) in [
        ("/v1/models", "localhost"),
        ("/nowhere", "localhost"),
        ("/fault", "localhost"),
        ("/v1/models", "evil.example"),
    ] {
        let request = request("GET", path, &[("host", host), ("x-request-id", "mine")]);
        let (_, response, _) = send(&router, request).await;
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(ids.insert(headers["x-request-id"].clone()), "{path}");
    }
    assert!(ids.iter().all(|id| id != "mine"));
}

#[tokio::test]
async fn a_panic_is_an_error_of_one_request() {
    let router = router(&app(Config::default()));
    let (status, _, body) = send(&router, request("GET", "/fault", &[])).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (500, &Value::from("internal"))
    );
    assert!(!body.to_string().contains("for the test"), "{body}");
    let (status, _, body) = send(&router, request("GET", "/api/fault", &[])).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        status.as_u16() == 500 && body["error"].is_string(),
        "{body}"
    );
    assert_eq!(
        told(&router, request("GET", "/v1/models", &[])).await.0,
        200
    );
}

#[tokio::test]
async fn a_server_that_stops_answers_probes_alone() {
    let app = app(Config::default());
    let router = router(&app);
    app.drain();
    let (status, response, body) = send(&router, request("GET", "/v1/models", &[])).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "server_stopping");
    let refused = request("POST", "/v1/messages", &[]);
    let (_, _, body) = send(&router, refused).await;
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap()["type"],
        "error"
    );
    assert_eq!(told(&router, request("GET", "/healthz", &[])).await.0, 200);
}
