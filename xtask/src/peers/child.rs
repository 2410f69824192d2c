//! A process whose time, first output and peak memory are taken from outside.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// More than any of the programs writes; the rest is dropped.
const OUTPUT_BYTES: u64 = 16 << 20;
/// How often a process is looked at. Its memory is a high-water mark, which misses nothing but
/// what it takes between the last look and its end.
const POLL: Duration = Duration::from_millis(5);

/// A process that ended well.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From before it was started to the first byte on its stdout, or to its end if it wrote none.
    pub(crate) first_output_seconds: f64,
    /// None where the system does not tell.
    pub(crate) peak_bytes: Option<u64>,
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot start, fails, or takes longer than `limit`: it is ended then. The last line it
/// wrote, to stderr rather than to stdout, is part of the message.
pub(crate) fn measure(command: &mut Command, limit: Duration) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = Instant::now();
    let child = piped
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    let mut child = Running(child);
    let stdout = child.0.stdout.take().context("stdout is piped")?;
    let stderr = child.0.stderr.take().context("stderr is piped")?;
    let stdout = thread::spawn(move || read(stdout, started));
    let stderr = thread::spawn(move || read(stderr, started));

    let mut peak_bytes = None;
    let status = loop {
        peak_bytes = peak_of(child.0.id()).or(peak_bytes);
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            bail!("it took longer than {} minutes", limit.as_secs() / 60);
        }
        thread::sleep(POLL);
    };
    let seconds = started.elapsed().as_secs_f64();
    let (Ok((stdout, first)), Ok((stderr, _))) = (stdout.join(), stderr.join()) else {
        bail!("cannot read the output of `{name}`");
    };
    if !status.success() {
        // Some tell an error as the last of their events.
        let mut lines = stderr.lines().rev().chain(stdout.lines().rev());
        let last = lines.find(|line| !line.trim().is_empty());
        bail!("it failed ({status}): {}", last.unwrap_or("without a word"));
    }
    Ok(Finished {
        stdout,
        stderr,
        first_output_seconds: first.unwrap_or(seconds),
        peak_bytes,
    })
}

/// A process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most memory that a running process ever held.
pub(crate) fn peak_of(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// All that a pipe gives, up to a limit, and when its first byte came.
fn read(mut pipe: impl Read, started: Instant) -> (String, Option<f64>) {
    let mut bytes = Vec::new();
    let mut first = [0];
    let mut first_seconds = None;
    if pipe.read_exact(&mut first).is_ok() {
        first_seconds = Some(started.elapsed().as_secs_f64());
        bytes.push(first[0]);
        // What came before an error is what there is.
        let _ = pipe.by_ref().take(OUTPUT_BYTES).read_to_end(&mut bytes);
        // A full pipe would stop the process.
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    }
    (String::from_utf8_lossy(&bytes).into_owned(), first_seconds)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_process_is_measured_from_outside() {
        let script = "sleep 0.1; echo first; sleep 0.3; echo second; echo note >&2";
        let finished = measure(&mut shell(script), MINUTE).unwrap();
        assert_eq!(finished.stdout, "first\nsecond\n");
        assert_eq!(finished.stderr, "note\n");
        let first = finished.first_output_seconds;
        assert!((0.1..60.0).contains(&first), "{first}");
        if cfg!(target_os = "linux") {
            let peak = finished.peak_bytes.unwrap();
            assert!((100_000..1 << 30).contains(&peak), "{peak}");
        }
        let silent = measure(&mut shell("sleep 0.1"), MINUTE).unwrap();
        assert!(silent.first_output_seconds >= 0.1);
    }

    #[test]
    fn a_failure_says_what_the_process_said_last() {
        let failed = measure(&mut shell("echo a >&2; echo b >&2; exit 3"), MINUTE).unwrap_err();
        let failed = failed.to_string();
        assert!(failed.contains("exit status: 3"), "{failed}");
        assert!(failed.ends_with(": b"), "{failed}");
        let failed = measure(&mut shell("echo a; echo b; exit 3"), MINUTE).unwrap_err();
        assert!(failed.to_string().ends_with(": b"), "{failed}");
        let late = measure(&mut shell("exec sleep 50"), Duration::from_millis(50));
        let late = late.unwrap_err().to_string();
        assert!(late.contains("longer than"), "{late}");
    }
}
