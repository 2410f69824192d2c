//! The log: events as JSON lines, written in one place.
//!
//! What users wrote and what models answered is in no line, unless the operator asks for it; their
//! hashes and counts are.

mod hash;
mod prompt;
mod redact;
mod timing;
mod watch;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

pub(crate) use watch::Watch;

use crate::config::{LogPolicy, LogTarget};
use writer::Writer;

/// The version of every event's schema.
const VERSION: u32 = 1;

/// Takes events and has them written by a thread of its own.
pub(crate) struct Log {
    /// `None` where nothing is logged.
    writer: Option<Writer>,
    device_id: Option<String>,
}

impl Log {
    /// # Errors
    /// The file cannot be opened, or made readable by its owner alone, or there is no thread.
    pub(crate) fn new(policy: &LogPolicy) -> io::Result<Self> {
        let sink: Box<dyn Write + Send> = match &policy.target {
            None => {
                return Ok(Self {
                    writer: None,
                    device_id: None,
                });
            }
            Some(LogTarget::Stderr) => Box::new(io::stderr()),
            Some(LogTarget::File(path)) => Box::new(open(path)?),
        };
        Self::to(sink, policy)
    }

    /// A log that ends in `sink`.
    pub(crate) fn to(sink: Box<dyn Write + Send>, policy: &LogPolicy) -> io::Result<Self> {
        Ok(Self {
            writer: Some(Writer::start(sink)?),
            device_id: policy.device_id.clone(),
        })
    }

    /// Whether anything is logged.
    pub(crate) fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes an event: an object whose `event` says what it is. What all events have is put
    /// before it. Never waits; where too much is waiting already, the event is counted as lost.
    pub(crate) fn event(&self, event: Value) {
        let Some(writer) = &self.writer else { return };
        let Value::Object(event) = event else { return };
        let mut line = Map::new();
        let name = event.get("event").cloned().unwrap_or_default();
        line.insert("event".to_owned(), name);
        line.insert("version".to_owned(), json!(VERSION));
        line.insert("ts_unix_ms".to_owned(), json!(unix_ms()));
        line.insert("runtime_id".to_owned(), json!(RUNTIME_ID));
        line.insert("device_id".to_owned(), json!(self.device_id));
        line.extend(event);
        writer.write(Value::Object(line).to_string());
    }

    /// Lines that could not be written so far.
    pub(crate) fn lost(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::lost)
    }
}

/// What writes the log, with its version.
const RUNTIME_ID: &str = concat!("tercel-", env!("CARGO_PKG_VERSION"));

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Opens a file for its owner alone, to be written at its end.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

        let file = options.mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        // A file that was there before; pipes and devices are left as they are.
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// What was written, shared with the log that writes it.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// A log that ends here. What it writes is complete once it has been dropped.
        pub(crate) fn log(&self, policy: &LogPolicy) -> Log {
            Log::to(Box::new(self.clone()), policy).expect("a thread")
        }

        pub(crate) fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8(bytes.clone()).expect("text")
        }

        pub(crate) fn events(&self) -> Vec<Value> {
            let parse = |line| serde_json::from_str(line).expect("a line is an object");
            self.text().lines().map(parse).collect()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Lines;
    use super::*;

    #[test]
    fn an_event_is_one_line_with_what_all_have_in_front() {
        let lines = Lines::default();
        let policy = LogPolicy {
            device_id: Some("edge-07".to_owned()),
            ..LogPolicy::default()
        };
        let log = lines.log(&policy);
        log.event(json!({"event": "test.one", "text": "a\nb"}));
        log.event(json!({"event": "test.two", "ts_unix_ms": 5}));
        log.event(json!("no object"));
        drop(log);
        let events = lines.events();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["device_id"], "edge-07");
        assert_eq!(events[0]["version"], 1);
        assert!(events[0]["ts_unix_ms"].as_u64() > Some(1_600_000_000_000));
        assert_eq!(events[1]["ts_unix_ms"], 5);
        assert!(
            lines
                .text()
                .starts_with(r#"{"event":"test.one","version":1,"ts_unix_ms":"#)
        );
    }

    #[test]
    fn without_a_target_nothing_happens() {
        let policy = LogPolicy {
            target: None,
            ..LogPolicy::default()
        };
        let log = Log::new(&policy).expect("nothing is opened");
        log.event(json!({"event": "test"}));
        assert!(!log.is_on());
        assert_eq!(log.lost(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_log_file_is_appended_to_and_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        let mode = || {
            let metadata = std::fs::metadata(&path).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        let policy = LogPolicy {
            target: Some(LogTarget::File(path.clone())),
            ..LogPolicy::default()
        };
        for run in 1..=2 {
            let log = Log::new(&policy).expect("opened");
            log.event(json!({"event": "test", "run": run}));
            drop(log);
            assert_eq!(mode(), 0o600);
            let wide = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&path, wide).expect("changed");
        }
        let text = std::fs::read_to_string(&path).expect("text");
        assert_eq!(text.lines().count(), 2);
        assert!(
            Log::new(&LogPolicy {
                target: Some(LogTarget::File(folder.path().to_owned())),
                ..LogPolicy::default()
            })
            .is_err()
        );
    }
}
