//! Servers as child processes, spoken to over loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::child::Running;

/// More than a reply of any length asked for takes.
const REPLY_BYTES: u64 = 16 << 20;

/// A port that was free a moment ago.
pub(super) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port of this machine is free")?;
    Ok(listener.local_addr()?)
}

/// Starts a server and waits until it answers `path` with 200.
///
/// # Errors
/// When it does not start, ends, or takes too long.
pub(super) fn start(command: &mut Command, address: SocketAddr, path: &str) -> Result<Running> {
    const LIMIT: Duration = Duration::from_secs(300);
    let name = command.get_program().to_string_lossy().into_owned();
    // Nobody reads what it says.
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let server = quiet.stderr(Stdio::null()).spawn();
    let mut server = Running(server.with_context(|| format!("cannot start `{name}`"))?);
    let started = Instant::now();
    loop {
        let answer = request(address, "GET", path, "", LIMIT);
        let mut line = String::new();
        let status = answer.and_then(|mut answer| Ok(answer.read_line(&mut line)?));
        if status.is_ok() && line.contains(" 200 ") {
            return Ok(server);
        }
        if let Some(status) = server.0.try_wait()? {
            bail!("`{name}` ended at once ({status})");
        }
        if started.elapsed() > LIMIT {
            bail!("`{name}` is not ready after {} s", LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a request on a connection of its own, and gives what comes back, its head included.
///
/// # Errors
/// When the server cannot be reached.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> Result<BufReader<impl Read + use<>>> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_nodelay(true)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    Ok(BufReader::new(stream.take(REPLY_BYTES)))
}
