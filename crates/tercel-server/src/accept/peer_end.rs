//! The other end of a connection, watched while a request is worked on.

use std::future::pending;
use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Tells when a peer has gone.
///
/// The HTTP library notices that only where it would read on, and it does not while it holds bytes
/// that came behind the request.
pub(super) struct PeerEnd(io::Result<TcpStream>);

impl PeerEnd {
    /// Of a handle of its own, so that what it learns is not taken from the one that reads.
    pub(super) fn of(stream: &TcpStream) -> Self {
        Self(duplicate(stream))
    }

    /// Waits until the peer sends no more. Where the system had no handle to give, for ever: then
    /// what is written to it fails.
    pub(super) async fn gone(&self) {
        if self.wait().await.is_err() {
            pending::<()>().await;
        }
    }

    async fn wait(&self) -> io::Result<()> {
        let handle = match &self.0 {
            Ok(handle) => handle,
            Err(error) => return Err(error.kind().into()),
        };
        loop {
            let ready = handle.ready(Interest::READABLE).await?;
            if ready.is_read_closed() {
                return Ok(());
            }
            // Bytes, which are not for us: wait for what comes after them.
            let wait = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = handle.try_io(Interest::READABLE, wait);
        }
    }
}

#[cfg(unix)]
fn duplicate(stream: &TcpStream) -> io::Result<TcpStream> {
    use std::os::fd::AsFd;

    let handle = stream.as_fd().try_clone_to_owned()?;
    TcpStream::from_std(handle.into())
}

#[cfg(not(unix))]
fn duplicate(_: &TcpStream) -> io::Result<TcpStream> {
    Err(io::ErrorKind::Unsupported.into())
}
