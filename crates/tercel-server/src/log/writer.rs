//! The thread that writes the lines, so that no request waits for a disk or a terminal.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{RUNTIME_ID, VERSION, unix_ms};

/// Lines that may wait to be written.
const LINES_AHEAD: usize = 8192;
/// Bytes that may wait to be written: lines with whole prompts are long.
const BYTES_AHEAD: usize = 16 << 20;
/// How long the end of the server waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    /// Taken at the end, which ends the thread.
    lines: Option<SyncSender<String>>,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Lines lost of which the log does not tell yet.
    untold: AtomicU64,
    /// Lines lost, ever.
    lost: AtomicU64,
}

impl Counts {
    fn lose(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Writer {
    pub(super) fn start(sink: Box<dyn Write + Send>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES_AHEAD);
        let counts = Arc::<Counts>::default();
        let thread = thread::Builder::new()
            .name("tercel-log".to_owned())
            .spawn({
                let counts = Arc::clone(&counts);
                move || run(&receiver, sink, &counts)
            })?;
        Ok(Self {
            lines: Some(sender),
            counts,
            thread,
        })
    }

    /// Has a line written, or counts it as lost where too many wait.
    pub(super) fn write(&self, line: String) {
        let bytes = line.len();
        let waiting = self.counts.waiting.fetch_add(bytes, Ordering::Relaxed);
        let is_taken = waiting.saturating_add(bytes) <= BYTES_AHEAD
            && self
                .lines
                .as_ref()
                .is_some_and(|lines| lines.try_send(line).is_ok());
        if !is_taken {
            self.counts.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.lose();
        }
    }

    /// Lines that were lost.
    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    /// Waits for the last lines, but not for a pipe that nobody reads.
    fn drop(&mut self) {
        drop(self.lines.take());
        let end = Instant::now() + LAST_LINES;
        while !self.thread.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn run(lines: &Receiver<String>, sink: Box<dyn Write + Send>, counts: &Counts) {
    let mut sink = Sink {
        sink,
        is_torn: false,
    };
    while let Ok(line) = lines.recv() {
        counts.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        if !tell_lost(&mut sink, counts) || sink.line(line).is_err() {
            counts.lose();
        }
    }
    tell_lost(&mut sink, counts);
}

/// Writes how many lines were lost, if any; false when that cannot be written either.
fn tell_lost(sink: &mut Sink, counts: &Counts) -> bool {
    let untold = counts.untold.swap(0, Ordering::Relaxed);
    if untold == 0 {
        return true;
    }
    let notice = json!({
        "event": "log.lines_lost",
        "version": VERSION,
        "ts_unix_ms": unix_ms(),
        "runtime_id": RUNTIME_ID,
        "lines": untold,
    });
    let is_told = sink.line(notice.to_string()).is_ok();
    if !is_told {
        counts.untold.fetch_add(untold, Ordering::Relaxed);
    }
    is_told
}

struct Sink {
    sink: Box<dyn Write + Send>,
    /// Half a line stands at the end: the disk was full.
    is_torn: bool,
}

impl Sink {
    fn line(&mut self, mut line: String) -> io::Result<()> {
        if self.is_torn {
            line.insert(0, '\n');
        }
        line.push('\n');
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Mutex, PoisonError};

    use serde_json::Value;

    use super::*;

    /// A disk with room for so many bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn with_room(bytes: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), bytes))))
        }

        fn make_room(&self) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = usize::MAX;
        }

        fn text(&self) -> String {
            let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8(state.0.clone()).expect("text")
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (text, room) = &mut *state;
            if *room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let written = bytes.len().min(*room);
            text.extend_from_slice(&bytes[..written]);
            *room -= written;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn wait_for(holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(holds());
    }

    #[test]
    fn no_line_is_lost_at_the_end_and_their_order_stays() {
        let disk = Disk::with_room(usize::MAX);
        let writer = Writer::start(Box::new(disk.clone())).expect("a thread");
        for line in 0..5000 {
            writer.write(line.to_string());
        }
        drop(writer);
        let text = disk.text();
        let lines: Vec<usize> = text
            .lines()
            .map(|line| line.parse().expect("a number"))
            .collect();
        assert_eq!(lines, (0..5000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_disk_loses_lines_and_tells_once_there_is_room() {
        let disk = Disk::with_room(10);
        let writer = Writer::start(Box::new(disk.clone())).expect("a thread");
        for line in ["\"first\"", "\"torn\"", "\"lost\""] {
            writer.write(line.to_owned());
        }
        wait_for(|| writer.lost() == 2);
        disk.make_room();
        writer.write("\"last\"".to_owned());
        drop(writer);
        let text = disk.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["\"first\"", "\"t"]);
        let notice: Value = serde_json::from_str(lines[2]).expect("an event");
        assert_eq!(
            (&notice["event"], &notice["lines"]),
            (&json!("log.lines_lost"), &json!(2))
        );
        assert_eq!(lines[3..], ["\"last\""]);
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = channel();
        let writer = Writer::start(Box::new(Stuck(stuck))).expect("a thread");
        let started = Instant::now();
        for _ in 0..LINES_AHEAD + 100 {
            writer.write("line".to_owned());
        }
        writer.write("x".repeat(BYTES_AHEAD + 1));
        assert!(writer.lost() >= 100);
        drop(writer);
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(release);
    }
}
