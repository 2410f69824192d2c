//! candle, through a small program of ours that is built in the cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::RUN;
use super::child::{self, Finished};
use super::metric::{Job, Metric};
use super::peer::{Peer, Reading, shown};
use super::subject::Subject;
use crate::process;

const MANIFEST: &str = include_str!("candle/manifest.toml");
const PROGRAM: &str = include_str!("candle/program.rs");
const NAME: &str = "candle-bench";
/// candle chooses its instructions when it is compiled.
const RUSTFLAGS: &str = "-C target-cpu=native";
/// Tokens that a short prompt comes to: our program has no tokenizer.
const SHORT: u32 = 8;

/// candle as built.
pub(crate) struct Candle {
    program: PathBuf,
}

impl Candle {
    /// Writes the program into a folder and builds it there.
    ///
    /// # Errors
    /// When it cannot be built, or is not there and may not be.
    pub(crate) fn provide(cache: &Path, is_build_forbidden: bool) -> Result<Self> {
        const BUILD: Duration = Duration::from_secs(3600);
        let folder = cache.join("candle");
        let target = folder.join("target");
        let name = format!("{NAME}{}", std::env::consts::EXE_SUFFIX);
        let program = target.join("release").join(name);
        if is_build_forbidden {
            if !program.is_file() {
                bail!("there is no {}", program.display());
            }
            return Ok(Self { program });
        }
        fs::create_dir_all(folder.join("src"))?;
        write_if_new(&folder.join("Cargo.toml"), MANIFEST)?;
        write_if_new(&folder.join("src/main.rs"), PROGRAM)?;
        let mut build = process::cargo(&folder, &["build", "--release", "--target-dir"]);
        build.arg(&target).env("RUSTFLAGS", RUSTFLAGS);
        build.env_remove("CARGO_ENCODED_RUSTFLAGS");
        process::run(&mut build, BUILD).context("candle cannot be built")?;
        Ok(Self { program })
    }

    fn run(
        &self,
        [depth, prompt, tokens]: [u32; 3],
        warmup: u32,
        subject: &Subject,
        threads: u32,
    ) -> Result<(Times, Finished, String)> {
        let mut command = Command::new(&self.program);
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command.env("CANDLE_NUM_THREADS", threads.to_string());
        command.arg(&subject.path);
        command.args([depth, prompt, tokens, warmup].map(|number| number.to_string()));
        let finished = child::measure(&mut command, RUN)?;
        let times = Times::read(&finished.stdout)?;
        Ok((times, finished, shown(&command, subject)))
    }
}

impl Peer for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn version(&self) -> String {
        let dependencies = MANIFEST.lines().filter(|line| line.starts_with("candle-"));
        let dependencies: Vec<String> = dependencies
            .map(|line| line.replace(" = \"=", " ").replace('"', ""))
            .collect();
        format!("{}, {RUSTFLAGS}", dependencies.join(", "))
    }

    fn measure(&self, job: Job, subject: &Subject, threads: u32) -> Result<Reading> {
        let (test, warmup) = match job {
            Job::Prefill { tokens } => ([0, tokens, 0], 1),
            // Something must be read first, to have a token to go on with.
            Job::Decode { depth, tokens } => ([depth, u32::from(depth == 0), tokens], 1),
            Job::Start => ([0, SHORT, 0], 0),
            Job::Memory { context } => ([0, context, 0], 0),
            Job::Chats { .. } => bail!("candle has no batches of several chats"),
            Job::Serve(_) => bail!("candle has no server"),
            Job::Limits => bail!("it has no word about the machine"),
        };
        let (times, finished, command) = self.run(test, warmup, subject, threads)?;
        let values = match job {
            Job::Prefill { tokens } => {
                let rate = f64::from(tokens) / times.prefill_seconds;
                vec![(Metric::Prefill { tokens }, rate)]
            }
            Job::Decode { depth, tokens } => {
                let rate = f64::from(tokens) / times.decode_seconds;
                vec![(Metric::Decode { depth }, rate)]
            }
            Job::Memory { context } => {
                let peak = finished.peak_bytes.context("this system does not tell")?;
                vec![(Metric::PeakMemory { context }, peak as f64)]
            }
            _ => vec![
                (Metric::FirstToken, finished.first_output_seconds),
                (Metric::Load, times.load_seconds),
            ],
        };
        Ok(Reading {
            values,
            peak_bytes: finished.peak_bytes,
            command,
        })
    }
}

/// What the program reports.
#[derive(Debug, PartialEq)]
struct Times {
    load_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
}

impl Times {
    fn read(json: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(json).context("the program gave no JSON")?;
        let number = |name: &str| {
            let number = report[name].as_f64();
            number.with_context(|| format!("the program gave no `{name}`"))
        };
        Ok(Self {
            load_seconds: number("load_seconds")?,
            prefill_seconds: number("prefill_seconds")?,
            decode_seconds: number("decode_seconds")?,
        })
    }
}

/// Leaves a file alone that is the same, so that nothing is built anew.
fn write_if_new(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_the_program_is_read() {
        let json = r#" {"load_seconds":0.5,"prefill_seconds":1e-3,"decode_seconds":2,"last":7}"#;
        let want = Times {
            load_seconds: 0.5,
            prefill_seconds: 0.001,
            decode_seconds: 2.0,
        };
        assert_eq!(Times::read(json).unwrap(), want);
        let error = Times::read(r#"{"load_seconds":0.5}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`prefill_seconds`"), "{error}");
    }

    #[test]
    fn the_version_is_that_of_the_manifest() {
        let candle = Candle {
            program: PathBuf::new(),
        };
        let version = candle.version();
        let want = "candle-core 0.11.1, candle-transformers 0.11.1, -C target-cpu=native";
        assert_eq!(version, want);
    }
}
