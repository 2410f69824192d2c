//! HTTP as a download needs it: cancellable at any moment, never silent for long, and with the
//! token shown to nobody but its own host.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request, Uri};
use ureq::tls::{RootCerts, TlsConfig};

use super::environment::{Environment, Timeouts, Token};

/// A client for one endpoint and whatever it redirects to.
pub(super) struct Client {
    endpoint: Option<Origin>,
    token: Option<Token>,
    timeouts: Timeouts,
}

/// The head of a response.
pub(super) struct Head {
    /// The status code.
    pub(super) status: u16,
    /// Headers of the response, and the `x-` headers of the redirects that led to it: the Hub
    /// describes a file in the headers of its redirect.
    pub(super) headers: HeaderMap,
}

impl Head {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Who takes a response. An error of any of its methods ends the exchange at once.
pub(super) trait Sink {
    /// What ends an exchange.
    type Error;

    /// Called at least ten times a second.
    fn poll(&mut self) -> Result<(), Self::Error>;

    /// Takes the head; whether the body is wanted.
    fn head(&mut self, head: Head) -> Result<bool, Self::Error>;

    /// Takes the next piece of the body.
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// Why an exchange ended early.
pub(super) enum Failure<E> {
    /// No connection: the name does not resolve, nobody listens, the handshake fails.
    Unreachable(String),
    /// The connection stood and then broke or went silent.
    Broken(String),
    /// The sink stopped it.
    Stopped(E),
}

impl Client {
    pub(super) fn new(environment: &Environment) -> Self {
        Self {
            endpoint: environment
                .hub_endpoint
                .parse()
                .ok()
                .as_ref()
                .and_then(Origin::of),
            token: environment.hub_token.clone(),
            timeouts: environment.timeouts,
        }
    }

    /// Whether requests to the endpoint carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Sends a request without a body and passes on the response as it arrives.
    pub(super) fn exchange<S: Sink>(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        sink: &mut S,
    ) -> Result<(), Failure<S::Error>> {
        const POLL: Duration = Duration::from_millis(50);
        const CHUNKS_IN_FLIGHT: usize = 8;

        // The worker owns the blocking calls, so that this thread can always react. It is not
        // joined: after the shutdown it ends by itself, at the latest when a timeout expires.
        let agent = agent(&self.timeouts);
        let (sender, receiver) = sync_channel(CHUNKS_IN_FLIGHT);
        let worker = Worker {
            agent: agent.clone(),
            endpoint: self.endpoint.clone(),
            token: self.token.clone(),
            sender,
        };
        let (url, headers) = (url.to_owned(), headers.to_vec());
        thread::Builder::new()
            .name("tercel-download".to_owned())
            .spawn(move || worker.run(&method, url, &headers))
            .map_err(|error| Failure::Unreachable(format!("no thread: {error}")))?;
        let _shutdown = Shutdown(Some(agent));

        loop {
            sink.poll().map_err(Failure::Stopped)?;
            match next(&receiver, POLL) {
                Some(Event::Head(response)) => {
                    let wants_body = sink.head(response).map_err(Failure::Stopped)?;
                    if !wants_body {
                        return Ok(());
                    }
                }
                Some(Event::Chunk(bytes)) => sink.chunk(&bytes).map_err(Failure::Stopped)?,
                Some(Event::End) => return Ok(()),
                Some(Event::Unreachable(reason)) => return Err(Failure::Unreachable(reason)),
                Some(Event::Broken(reason)) => return Err(Failure::Broken(reason)),
                None => {}
            }
        }
    }
}

enum Event {
    Head(Head),
    Chunk(Vec<u8>),
    End,
    Unreachable(String),
    Broken(String),
}

/// The next event, or nothing after `wait`.
fn next(receiver: &Receiver<Event>, wait: Duration) -> Option<Event> {
    match receiver.recv_timeout(wait) {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Event::Broken("connection lost".to_owned())),
    }
}

/// Breaks the connections of an agent when the exchange is over, however it ended.
struct Shutdown(Option<ureq::Agent>);

impl Drop for Shutdown {
    fn drop(&mut self) {
        if let Some(agent) = self.0.take() {
            agent.shutdown();
        }
    }
}

struct Worker {
    agent: ureq::Agent,
    endpoint: Option<Origin>,
    token: Option<Token>,
    sender: SyncSender<Event>,
}

impl Worker {
    fn run(self, method: &Method, url: String, headers: &[(&'static str, String)]) {
        let event = self
            .transfer(method, url, headers)
            .unwrap_or_else(|error| failure(&error));
        // Nobody listens after a cancel.
        let _ = self.sender.send(event);
    }

    fn transfer(
        &self,
        method: &Method,
        mut url: String,
        headers: &[(&'static str, String)],
    ) -> Result<Event, ureq::Error> {
        const MOST_REDIRECTS: usize = 8;
        const CHUNK_BYTES: usize = 1 << 17;

        let mut described = HeaderMap::new();
        for _ in 0..=MOST_REDIRECTS {
            let uri: Uri = url
                .parse()
                .map_err(|_| ureq::Error::BadUri(without_query(&url).to_owned()))?;
            let origin =
                Origin::of(&uri).ok_or_else(|| ureq::Error::BadUri(without_query(&url).into()))?;
            let mut request = Request::builder().method(method).uri(&uri);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(token) = &self.token
                && self.endpoint.as_ref() == Some(&origin)
            {
                request = request.header("authorization", token.authorization());
            }
            let response = self
                .agent
                .run(request.body(()).map_err(ureq::Error::Http)?)?;
            let status = response.status().as_u16();
            let location = response
                .headers()
                .get("location")
                .and_then(|to| to.to_str().ok());
            if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, location) {
                let target = redirect_target(&url, &origin, location)?;
                for (name, value) in response.headers() {
                    if name.as_str().starts_with("x-") {
                        described.entry(name).or_insert_with(|| value.clone());
                    }
                }
                // The redirect already says what a HEAD asks for, and signed links of storage
                // servers often refuse a HEAD.
                let leaves = target.parse().ok().as_ref().and_then(Origin::of) != Some(origin);
                if leaves && method == Method::HEAD && described.contains_key("x-linked-etag") {
                    let _ = self.sender.send(Event::Head(Head {
                        status: 200,
                        headers: described,
                    }));
                    return Ok(Event::End);
                }
                url = target;
                continue;
            }
            let (parts, body) = response.into_parts();
            let mut headers = parts.headers;
            for (name, value) in described {
                if let Some(name) = name {
                    headers.entry(name).or_insert(value);
                }
            }
            if self
                .sender
                .send(Event::Head(Head { status, headers }))
                .is_err()
            {
                return Ok(Event::End);
            }
            if method == Method::HEAD {
                return Ok(Event::End);
            }
            let mut reader = body.into_reader();
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let read = match reader.read(&mut buffer) {
                    Ok(0) => return Ok(Event::End),
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Ok(interruption(&error)),
                };
                if self
                    .sender
                    .send(Event::Chunk(buffer[..read].to_vec()))
                    .is_err()
                {
                    return Ok(Event::End);
                }
            }
        }
        Err(ureq::Error::TooManyRedirects)
    }
}

fn agent(timeouts: &Timeouts) -> ureq::Agent {
    let roots = if has_system_certificates() {
        RootCerts::PlatformVerifier
    } else {
        RootCerts::WebPki
    };
    ureq::Agent::config_builder()
        .user_agent(concat!("tercel/", env!("CARGO_PKG_VERSION")))
        // A compressed body would have other ranges.
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_recv_response(Some(timeouts.response))
        .timeout_per_read(Some(timeouts.stall))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build()
        .new_agent()
}

/// The system's certificates include those that an administrator added; small containers have none,
/// and then the ones compiled in are used.
fn has_system_certificates() -> bool {
    const PLACES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
        "/etc/ssl/ca-bundle.pem",
    ];
    cfg!(any(windows, target_vendor = "apple"))
        || ["SSL_CERT_FILE", "SSL_CERT_DIR"]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
        || PLACES
            .iter()
            .any(|place| std::path::Path::new(place).exists())
}

/// What happened before a response. A connection that broke may hold the next time; everything else
/// that can go wrong here will go wrong again.
fn failure(error: &ureq::Error) -> Event {
    use ureq::Timeout::{Connect, Resolve};
    match error {
        ureq::Error::HostNotFound => unreachable_because("the host name does not resolve"),
        ureq::Error::Timeout(Connect | Resolve) => unreachable_because("no connection in time"),
        ureq::Error::Timeout(_) => Event::Broken("the server went silent".to_owned()),
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => unreachable_because("connection refused"),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Event::Broken(error.to_string()),
            _ if error.to_string().contains("lookup address") => {
                unreachable_because("the host name does not resolve")
            }
            _ => unreachable_because(&error.to_string()),
        },
        ureq::Error::Protocol(error) => Event::Broken(error.to_string()),
        other => unreachable_because(&other.to_string()),
    }
}

fn unreachable_because(reason: &str) -> Event {
    Event::Unreachable(reason.lines().collect::<Vec<_>>().join(" "))
}

/// What happened within a body.
fn interruption(error: &io::Error) -> Event {
    let timed_out = error.kind() == io::ErrorKind::TimedOut
        || error
            .get_ref()
            .is_some_and(|inner| matches!(inner.downcast_ref(), Some(ureq::Error::Timeout(_))));
    Event::Broken(if timed_out {
        "the server went silent".to_owned()
    } else {
        "the connection broke".to_owned()
    })
}

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self {
            https,
            host: uri.host()?.to_lowercase(),
            port,
        })
    }
}

fn redirect_target(url: &str, origin: &Origin, location: &str) -> Result<String, ureq::Error> {
    let scheme = if origin.https { "https" } else { "http" };
    let target = if location.starts_with("https://") || location.starts_with("http://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        let authority = url.split('/').nth(2).unwrap_or_default();
        format!("{scheme}://{authority}{location}")
    } else {
        return Err(ureq::Error::BadUri(
            "a redirect to a relative path".to_owned(),
        ));
    };
    if origin.https && !target.starts_with("https://") {
        return Err(ureq::Error::RequireHttpsOnly(
            "a redirect to plain http".to_owned(),
        ));
    }
    Ok(target)
}

/// A URL as messages show it: signed links carry their secret in the query.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Option<Origin> {
        url.parse().ok().as_ref().and_then(Origin::of)
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(
            origin("https://Hub.example/a"),
            origin("https://hub.example:443/b?c")
        );
        for other in [
            "http://hub.example/",
            "https://hub.example:444/",
            "https://x.example/",
        ] {
            assert_ne!(origin("https://hub.example/"), origin(other));
        }
        assert_eq!(origin("ftp://hub.example/"), None);
    }

    #[test]
    fn redirects_are_joined_and_never_leave_https() {
        let base = "https://hub.example:8443/a/b?c";
        let from = origin(base).expect("an origin");
        for (location, expected) in [
            ("/x?y", Some("https://hub.example:8443/x?y")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("http://cdn.example/x", None),
            ("x", None),
            ("file:///etc/passwd", None),
        ] {
            let target = redirect_target(base, &from, location).ok();
            assert_eq!(target.as_deref(), expected, "{location}");
        }
    }
}
