//! A connection that gives up on a peer that does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a peer must take on average while something waits for it, or it is as good as gone. A reply
/// that is read as it is made is some thousands of bytes a second.
const LEAST_BYTES_PER_SECOND: u32 = 256;

/// A connection with patience for its peer, `limits.write_timeout` at first. Time in which a write
/// waits uses it up; each byte that is taken gives back 1/256 of a second, and never more than was
/// there at first. When it is used up, writing fails.
///
/// So a peer that takes nothing is dropped after the timeout, one that takes a byte a second hardly
/// later, and one that takes 256 never. What counts as taken is what the system takes, which it does
/// in pieces: a peer that is near the bound may be dropped for reading too little at once.
pub(super) struct Patient<S> {
    stream: S,
    most: Duration,
    /// What is left, as of the begin of the wait.
    left: Duration,
    /// Since when a write waits, and when patience ends.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, most: Duration) -> Self {
        Self {
            stream,
            most,
            left: most,
            wait: None,
        }
    }

    /// A write of so many bytes came through.
    fn taken(&mut self, bytes: usize) {
        if let Some((since, _)) = self.wait.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let back = Duration::from_secs(1).saturating_mul(bytes) / LEAST_BYTES_PER_SECOND;
        self.left = self.left.saturating_add(back).min(self.most);
    }

    /// A write has to wait; fails when it has to no longer.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.left;
        let (_, end) = self
            .wait
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        end.as_mut().poll(context).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer does not read what it is sent",
            ))
        })
    }

    fn noted(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.wait(context),
            Poll::Ready(written) => {
                self.taken(*written.as_ref().unwrap_or(&0));
                Poll::Ready(written)
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.noted(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    /// Writes until it fails, to a peer that reads `bytes` every `seconds`; how many seconds that
    /// took, unless it was longer than an hour.
    async fn dropped_after(bytes: usize, seconds: u64) -> Option<u64> {
        let (ours, theirs) = duplex(1024);
        let mut ours = Patient::new(ours, Duration::from_secs(30));
        let reader = tokio::spawn(read(theirs, bytes, seconds));
        let start = Instant::now();
        let writes = async { while ours.write_all(&[0; 512]).await.is_ok() {} };
        let ended = tokio::time::timeout(Duration::from_secs(3600), writes).await;
        reader.abort();
        ended.is_ok().then(|| start.elapsed().as_secs())
    }

    async fn read(mut stream: DuplexStream, bytes: usize, seconds: u64) {
        let mut buffer = vec![0; bytes];
        loop {
            sleep(Duration::from_secs(seconds)).await;
            if stream.read_exact(&mut buffer).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_dropped() {
        assert_eq!(dropped_after(1, 10_000).await, Some(30));
        let slow = dropped_after(1, 1).await;
        assert!(matches!(slow, Some(30..=31)), "{slow:?}");
        let half = dropped_after(128, 1).await;
        assert!(matches!(half, Some(58..=64)), "{half:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_reads_slowly_is_not() {
        assert_eq!(dropped_after(260, 1).await, None);
        assert_eq!(dropped_after(1000, 2).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nothing_is_written_is_no_wait() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Patient::new(ours, Duration::from_secs(30));
        for _ in 0..10 {
            ours.write_all(&[1; 64]).await.unwrap();
            sleep(Duration::from_secs(1000)).await;
            theirs.read_exact(&mut [0; 64]).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_pauses_and_reads_on_is_not_dropped() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Patient::new(ours, Duration::from_secs(30));
        for _ in 0..10 {
            let (written, ()) = tokio::join!(ours.write_all(&[1; 8192]), async {
                sleep(Duration::from_secs(20)).await;
                theirs.read_exact(&mut [0; 8192]).await.unwrap();
            });
            written.unwrap();
        }
    }
}
