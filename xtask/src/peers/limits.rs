//! What the machine could do: bytes that it reads in a second, and multiply-adds.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::RUN;
use super::child::{self, Running};
use super::metric::{Job, Metric};
use super::peer::{Peer, Reading, shown};
use super::subject::Subject;
use crate::process;
use crate::workspace::Workspace;

/// As a column of the report.
pub(crate) const NAME: &str = "the machine";
const PROGRAM: &str = include_str!("limits/bandwidth.rs");
/// A test of the kernels that begins with the integer peak of one thread.
const PEAK: &str = "ops::matmul::bench::rate_of_products";

/// The machine, as if it were a program that ran no model.
pub(crate) struct Limits {
    bandwidth: PathBuf,
    /// The tests of the kernels, in release; or why they are not there.
    kernels: Result<PathBuf, String>,
}

impl Limits {
    /// Builds both programs, the first with all the instructions that the machine has.
    ///
    /// # Errors
    /// When the first is not to be had.
    pub(crate) fn provide(workspace: &Workspace, cache: &Path) -> Result<Self> {
        const BUILD: Duration = Duration::from_secs(600);
        let folder = cache.join("bandwidth");
        fs::create_dir_all(&folder)?;
        let source = folder.join("main.rs");
        fs::write(&source, PROGRAM)?;
        let bandwidth = folder.join(format!("bandwidth{}", std::env::consts::EXE_SUFFIX));
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "-O", "-Ctarget-cpu=native", "-o"]);
        process::run(rustc.arg(&bandwidth).arg(&source), BUILD)?;
        let kernels = kernels(workspace).map_err(|error| format!("{error:#}"));
        Ok(Self { bandwidth, kernels })
    }

    fn integer_peak(&self) -> Result<f64> {
        let kernels = match &self.kernels {
            Ok(kernels) => kernels,
            Err(problem) => bail!("{problem}"),
        };
        let mut command = Command::new(kernels);
        command.args(["--exact", PEAK, "--ignored", "--nocapture"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn();
        // It goes on with other figures, and ends with this function.
        let mut child = Running(child.context("cannot start the tests of the kernels")?);
        let stderr = child.0.stderr.take().context("stderr is piped")?;
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line)?;
        peak(&line).context("the kernels do not tell the integer peak of this machine")
    }
}

impl Peer for Limits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        format!(
            "bandwidth: the best of seven passes over 512 MiB, all threads together; integer peak: \
             of one thread with AVX2, by `{PEAK}` of the kernels"
        )
    }

    fn measure(&self, job: Job, subject: &Subject, threads: u32) -> Result<Reading> {
        if job != Job::Limits {
            bail!("no program");
        }
        let mut command = Command::new(&self.bandwidth);
        let finished = child::measure(command.arg(threads.to_string()), RUN)?;
        let report: Value = serde_json::from_str(&finished.stdout)?;
        let bandwidth = report["bytes_per_second"].as_f64();
        let bandwidth = bandwidth.context("the program gave no `bytes_per_second`")?;
        Ok(Reading {
            values: vec![
                (Metric::Bandwidth, bandwidth),
                (Metric::IntegerPeak, self.integer_peak()?),
            ],
            peak_bytes: None,
            command: shown(&command, subject),
        })
    }
}

/// Builds the tests of the kernels and says where they are.
fn kernels(workspace: &Workspace) -> Result<PathBuf> {
    const BUILD: Duration = Duration::from_secs(1800);
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels know the integer peak of x86-64 only");
    }
    let args = [
        "test",
        "--release",
        "--package=tercel-kernels",
        "--lib",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    let messages = process::output(&mut process::cargo(workspace.root(), &args), BUILD)?;
    executable(&messages).context("cargo does not tell where the tests of the kernels are")
}

/// The test program among the messages of cargo.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        if message["target"]["name"] != "tercel_kernels" || message["profile"]["test"] != true {
            return None;
        }
        message["executable"].as_str().map(PathBuf::from)
    })
}

/// Multiply-adds a second, out of a line that has them in units of 10^9.
fn peak(line: &str) -> Option<f64> {
    let number = line.trim().strip_prefix("integer peak of one thread: ")?;
    let number = number.strip_suffix(" G multiply-adds/s")?;
    let number: f64 = number.parse().ok()?;
    (number > 0.0).then_some(number * 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_line_of_the_kernels() {
        let line = "integer peak of one thread: 94 G multiply-adds/s\n";
        assert_eq!(peak(line), Some(94e9));
        for line in [
            "",
            "integer peak of one thread: 0 G multiply-adds/s",
            "avx2 Q4_1: 1x1 5",
        ] {
            assert_eq!(peak(line), None, "{line}");
        }
        let bench = include_str!("../../../crates/tercel-kernels/src/ops/matmul/bench.rs");
        assert!(bench.contains("\"integer peak of one thread: {:.0} G multiply-adds/s\""));
    }

    #[test]
    fn the_test_program_is_told_from_other_artifacts() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"tercel_formats"},"executable":null}"#,
            "\n",
            r#"{"target":{"name":"tercel_kernels"},"profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"target":{"name":"tercel_kernels"},"profile":{"test":true},"executable":"/x"}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/x")));
        assert_eq!(executable("{}\nnoise"), None);
    }
}
