//! One run of all kernels under callgrind.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::PACKAGE;
use super::record::Count;
use crate::process;
use crate::workspace::Workspace;

const EXAMPLE: &str = "counts";
/// The function of the example between whose calls callgrind parts its counts.
const BOUNDARY: &str = "*counts*boundary*";
const BUILD: Duration = Duration::from_secs(1800);
/// Some ten seconds where nothing else runs.
const RUN: Duration = Duration::from_secs(600);

/// What makes the counts those of any machine.
const ENVIRONMENT: [(&str, &str); 3] = [
    // Callgrind knows nothing wider.
    ("TERCEL_ISA", "avx2"),
    // Some processors copy and clear memory by one instruction, which is counted once a byte.
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS"),
    // What is freed goes back, so that memory from the system need not be cleared again.
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
];

/// Why nothing can be counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The counts are of the kernels of another processor.
    Processor,
    /// The program that counts.
    Valgrind,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processor => write!(f, "only AVX2 kernels on Linux are counted"),
            Self::Valgrind => write!(
                f,
                "valgrind is not installed: run `apt-get install valgrind`, or what your system \
                 has for it"
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// What counting lacks here, if anything.
pub(super) fn missing() -> Option<Missing> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Some(Missing::Processor);
    }
    let mut command = Command::new("valgrind");
    let quiet = command.arg("--version").stdin(Stdio::null());
    let status = quiet.stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!status.is_ok_and(|status| status.success())).then_some(Missing::Valgrind)
}

/// Counts, and what they depend on beside the code.
pub(super) struct Measurement {
    /// Versions of the compiler and of the program that counted.
    pub(super) tools: String,
    pub(super) counts: Vec<Count>,
}

impl Measurement {
    /// Builds the kernels in release and runs them once.
    ///
    /// # Errors
    /// [`Missing`], or when a command fails.
    pub(super) fn take(workspace: &Workspace) -> Result<Self> {
        if let Some(missing) = missing() {
            return Err(missing.into());
        }
        let package = format!("--package={PACKAGE}");
        let args = ["build", "--release", &package, "--example", EXAMPLE];
        process::run(&mut process::cargo(workspace.root(), &args), BUILD)?;
        let program = workspace.target().join("release/examples").join(EXAMPLE);
        let list = process::output(Command::new(&program).arg("--list"), RUN)?;
        let mut counts = cases(&list)?;
        let directory = workspace.target().join(EXAMPLE);
        let totals = run(&program, &directory)?;
        if totals.len() != 2 * counts.len() {
            bail!(
                "callgrind wrote {} parts and not two for each of {} cases: does the build strip \
                 symbols?",
                totals.len(),
                counts.len()
            );
        }
        // A part up to where a case is ready, then the part of the case.
        for (count, total) in counts.iter_mut().zip(totals.iter().skip(1).step_by(2)) {
            count.instructions = *total;
        }
        Ok(Self {
            tools: tools()?,
            counts,
        })
    }
}

/// The totals of all parts, in order.
fn run(program: &Path, directory: &Path) -> Result<Vec<u64>> {
    // Parts of an earlier run would be taken for parts of this one.
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    let file = directory.join("part");
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--dump-after={BOUNDARY}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .envs(ENVIRONMENT);
    process::run(&mut command, RUN)?;
    let mut totals = Vec::new();
    loop {
        let path = directory.join(format!("part.{}", totals.len() + 1));
        if !path.exists() {
            return Ok(totals);
        }
        let text = fs::read_to_string(&path)?;
        let total = total(&text).with_context(|| format!("{} has no total", path.display()))?;
        totals.push(total);
    }
}

/// The number of instructions of one part (Callgrind Format Specification, `totals`).
fn total(part: &str) -> Option<u64> {
    let mut lines = part.lines();
    let total = lines.find_map(|line| line.strip_prefix("totals:"))?;
    total.trim().parse().ok()
}

/// The cases as the example lists them, not counted yet.
fn cases(list: &str) -> Result<Vec<Count>> {
    let mut cases = Vec::new();
    for line in list.lines() {
        let Some((case, work)) = line.split_once(' ') else {
            bail!("`{line}` is no case");
        };
        let work = work.parse().with_context(|| format!("in `{line}`"))?;
        cases.push(Count {
            case: case.to_owned(),
            work,
            instructions: 0,
        });
    }
    Ok(cases)
}

/// `rustc 1.95.0, valgrind-3.19.0`
fn tools() -> Result<String> {
    let version = |program: &str| process::output(Command::new(program).arg("--version"), RUN);
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let (rustc, valgrind) = (version(&rustc)?, version("valgrind")?);
    // Without the commit and the date.
    let rustc: Vec<&str> = rustc.split_whitespace().take(2).collect();
    Ok(format!("{}, {}", rustc.join(" "), valgrind.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::record::Work;
    use super::*;

    #[test]
    fn a_part_has_a_total_or_none() {
        for (part, want) in [
            (
                "events: Ir\nsummary: 12\n\nfn=(1) a\n3 12\ntotals: 12\n",
                Some(12),
            ),
            ("totals:7", Some(7)),
            ("summary: 12\n", None),
            ("totals: many\n", None),
            ("", None),
        ] {
            assert_eq!(total(part), want, "{part}");
        }
    }

    #[test]
    fn cases_are_read_from_the_list() {
        let list = "matmul/F16/1 262144 multiply-adds\nquantize 64 numbers\n";
        let read = cases(list).unwrap();
        let count = |case: &str, amount, unit: &str| Count {
            case: case.to_owned(),
            work: Work {
                amount,
                unit: unit.to_owned(),
            },
            instructions: 0,
        };
        assert_eq!(
            read,
            [
                count("matmul/F16/1", 262_144, "multiply-adds"),
                count("quantize", 64, "numbers"),
            ]
        );
        for bad in ["matmul", "matmul many numbers", "matmul 3"] {
            let error = format!("{:#}", cases(bad).unwrap_err());
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_a_way_out() {
        assert!(
            Missing::Valgrind
                .to_string()
                .contains("apt-get install valgrind")
        );
    }
}
