//! What the tests of sources share: a web server of a few lines, stores, and wheels.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::allow_attributes,
    reason = "an expectation would fail where all parts are used"
)]

pub(crate) mod hub_repository;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tercel::source::{Control, Environment, LocalModel, Phase, Progress, SourceError, Store};

/// Bytes that no compression shortens and no shift leaves equal.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An environment that knows nothing of this machine and loses no time.
pub(crate) fn environment() -> Environment {
    let mut environment = Environment::from_lookup(|_| None);
    environment.hub_endpoint = "http://127.0.0.1:9".to_owned();
    environment.timeouts.stall = Duration::from_secs(2);
    environment.timeouts.backoff = Duration::from_millis(5);
    environment
}

/// Runs a fetch and returns it with everything that was reported.
pub(crate) fn fetch(
    store: &Store,
    model: &str,
) -> (Result<LocalModel, SourceError>, Vec<Progress>) {
    let mut reports = Vec::new();
    let mut sink = |progress| reports.push(progress);
    let model = store.parse(model).expect("a reference");
    let result = store.fetch(&model, &mut Control::new().on_progress(&mut sink));
    check_reports(&reports);
    (result, reports)
}

/// What every sequence of reports promises, whether the fetch succeeded or not.
pub(crate) fn check_reports(reports: &[Progress]) {
    for report in reports {
        let within = match report.phase {
            Phase::Downloading => (0.0..=0.70).contains(&report.fraction),
            Phase::Extracting => (0.70..=0.85).contains(&report.fraction),
            Phase::Loading | Phase::Ready => false,
        };
        assert!(within, "{report:?}");
        assert_eq!(report.to_string().lines().count(), 1, "{report:?}");
    }
    for pair in reports.windows(2) {
        assert!(pair[0].fraction <= pair[1].fraction, "{pair:?}");
        assert!(pair[0].phase <= pair[1].phase, "{pair:?}");
    }
}

pub(crate) fn notes(reports: &[Progress]) -> String {
    reports
        .iter()
        .filter_map(|report| report.note.clone())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every regular file below a directory, as relative paths.
pub(crate) fn files_below(root: &Path) -> Vec<String> {
    fn visit(directory: &Path, root: &Path, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                visit(&path, root, found);
            } else {
                let relative = path.strip_prefix(root).expect("below the root");
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    visit(root, root, &mut found);
    found.sort();
    found
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the server answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the length is announced; else the end of the connection ends the body.
    pub(crate) with_length: bool,
    /// Drop the connection after that many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Wait before the cut.
    pub(crate) hold: Duration,
    /// Wait before each 8 KiB of the body.
    pub(crate) pace: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            with_length: true,
            cut: None,
            hold: Duration::ZERO,
            pace: Duration::ZERO,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn cut_at(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    pub(crate) fn hold(mut self, duration: Duration) -> Self {
        self.hold = duration;
        self
    }

    /// Serves a file as the Hub does: described by its headers, in ranges if asked.
    pub(crate) fn file(request: &Request, bytes: &[u8], etag: &str) -> Self {
        let quoted = format!("\"{etag}\"");
        let start = request
            .header("range")
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .filter(|_| {
                request
                    .header("if-range")
                    .is_none_or(|condition| condition == quoted)
            });
        let reply = match start {
            Some(start) if start >= bytes.len() => Self::new(416, ""),
            Some(start) => Self::new(206, &bytes[start..]).with(
                "Content-Range",
                format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
            ),
            None => Self::new(200, bytes),
        };
        reply.with("ETag", quoted).with("X-Repo-Commit", "c0ffee")
    }
}

/// A web server on a free port of this machine, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request by `handler`, which also gets how many came before it with the same
    /// method.
    pub(crate) fn start(
        handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (log, sent, stop) = <(Arc<Mutex<Vec<Request>>>, Arc<_>, Arc<_>)>::default();
        let server = Self {
            address,
            log,
            sent,
            stop,
        };
        let (log, sent, stop) = (server.log.clone(), server.sent.clone(), server.stop.clone());
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for connection in listener.incoming().take(1_000) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let (log, sent, handler) = (log.clone(), sent.clone(), handler.clone());
                thread::spawn(move || {
                    let Some(request) = read_request(&connection) else {
                        return;
                    };
                    let before = {
                        let mut log = log.lock().expect("the log");
                        let before = log.iter().filter(|r| r.method == request.method).count();
                        log.push(request.clone());
                        before
                    };
                    // A client that hangs up is part of the tests.
                    let _ = answer(connection, &request, &handler(&request, before), &sent);
                });
            }
        });
        server
    }

    /// Serves one file to everyone, with the SHA-256 as its tag.
    pub(crate) fn of_file(bytes: Vec<u8>) -> Self {
        let etag = sha256(&bytes);
        Self::start(move |request, _| Reply::file(request, &bytes, &etag))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("the log").clone()
    }

    /// The `Range` headers of all GETs, with an empty text for none.
    pub(crate) fn ranges(&self) -> Vec<String> {
        self.requests()
            .iter()
            .filter(|request| request.method == "GET")
            .map(|request| request.header("range").unwrap_or_default().to_owned())
            .collect()
    }

    /// Bytes of bodies sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// A store in a new directory that takes this server for the Hub.
    pub(crate) fn store(&self) -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut environment = environment();
        environment.hub_endpoint = self.url();
        let store = Store::with_environment(directory.path(), environment);
        (directory, store)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(connection.take(1 << 14));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            None => {
                return Some(Request {
                    method,
                    path,
                    headers,
                });
            }
        }
    }
}

fn answer(
    mut connection: TcpStream,
    request: &Request,
    reply: &Reply,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Reason\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.with_length {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    for piece in reply.body[..end].chunks(8192) {
        thread::sleep(reply.pace);
        connection.write_all(piece)?;
        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    thread::sleep(reply.hold);
    Ok(())
}

/// A directory of wheels that the real pip takes for its index.
pub(crate) struct Wheels {
    pub(crate) directory: tempfile::TempDir,
}

impl Wheels {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Adds a wheel with one data member; returns its path.
    pub(crate) fn add(&self, name: &str, member: &str, data: &[u8]) -> PathBuf {
        let module = name.replace('-', "_");
        let path = self
            .directory
            .path()
            .join(format!("{module}-1.0-py3-none-any.whl"));
        let mut wheel = zip::ZipWriter::new(std::fs::File::create(&path).expect("a wheel"));
        let info = format!("{module}-1.0.dist-info");
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
        let tags =
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        let options = zip::write::SimpleFileOptions::default();
        for (file, bytes) in [
            (member.to_owned(), data),
            (format!("{info}/METADATA"), metadata.as_bytes()),
            (format!("{info}/WHEEL"), tags.as_bytes()),
            (format!("{info}/RECORD"), b"".as_slice()),
        ] {
            wheel.start_file(file, options).expect("a member");
            wheel.write_all(bytes).expect("written");
        }
        wheel.finish().expect("a whole wheel");
        path
    }

    /// An environment whose pip knows these wheels and nothing else.
    pub(crate) fn environment(&self) -> Environment {
        let mut environment = environment();
        environment.pip_variables = vec![
            ("PIP_NO_INDEX".into(), "1".into()),
            ("PIP_FIND_LINKS".into(), self.directory.path().into()),
        ];
        environment
    }
}
