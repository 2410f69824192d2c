//! Every test, on real models too, by one command and with nothing to set up.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{arm64, ci, clients, counts, loom, models, process, tokenizers};

/// More than any run takes; a single test is ended much earlier (`.config/nextest.toml`).
const LIMIT: Duration = Duration::from_secs(2700);

/// Provides models and tokenizers and runs the tests that `args` choose, by default all, and then
/// those of the public clients, and counts instructions. At the gate, lints come first, and the models of loom and the tests on
/// another processor last.
///
/// # Errors
/// When one of them cannot be had, a lint complains (at the gate), or a test fails.
pub(crate) fn run(args: &[String], at_gate: bool) -> Result<()> {
    let started = Instant::now();
    let workspace = Workspace::load()?;
    if at_gate {
        ci::lint(&workspace)?;
    }
    let mut files = models::provide(&workspace)?;
    files.push((tokenizers::VARIABLE, tokenizers::provide(&workspace)?));
    let runner = Runner {
        files,
        workspace,
        selection: Selection::of(args),
    };
    runner.tests()?;
    runner.doc_tests()?;
    if args.is_empty() {
        runner.instruction_sets()?;
        clients::run_if_possible(&runner.workspace)?;
        counts::check_if_possible(&runner.workspace)?;
        if at_gate {
            loom::run(&runner.workspace)?;
            arm64::run(&runner.workspace)?;
        }
    }
    say!("all passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Whether this machine checks a change for others. Lints are part of the test command then; at a
/// desk they would only delay the first failure.
pub(crate) fn is_gate() -> bool {
    std::env::var("CI").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
}

struct Runner {
    workspace: Workspace,
    /// Variables by which tests find models and tokenizers.
    files: Vec<(&'static str, PathBuf)>,
    selection: Selection,
}

impl Runner {
    /// Unit and integration tests, examples and benchmarks.
    fn tests(&self) -> Result<()> {
        let nextest = process::has_plugin(self.workspace.root(), "nextest");
        let mut command = if nextest {
            self.cargo(&["nextest", "run", "--all-targets", "--no-fail-fast"])
        } else {
            self.cargo(&["test", "--all-targets", "--no-fail-fast"])
        };
        command
            .args(self.selection.packages())
            .args(&self.selection.rest);
        process::run(&mut command, LIMIT)
    }

    /// The examples in the documentation of the chosen libraries.
    fn doc_tests(&self) -> Result<()> {
        if !self.selection.rest.is_empty() {
            return Ok(());
        }
        let mut command = self.cargo(&["test", "--doc", "--no-fail-fast"]);
        if !self.selection.packages.is_empty() {
            // Cargo refuses the flag for packages without a library.
            let libraries: Vec<&str> = self.workspace.libraries().collect();
            let chosen = self.selection.packages.iter();
            let chosen: Vec<&String> = chosen
                .filter(|name| libraries.contains(&name.as_str()))
                .collect();
            if chosen.is_empty() {
                return Ok(());
            }
            command.args(chosen.iter().map(|name| format!("--package={name}")));
        } else {
            command.arg("--workspace");
        }
        process::run(&mut command, LIMIT)
    }

    /// Tells which instruction sets the kernels were tested with on this machine.
    fn instruction_sets(&self) -> Result<()> {
        let test = "ops::matmul::tests::every_isa_gives_the_reference_bit_for_bit";
        let mut command = self.cargo(&["test", "--quiet", "--package=tercel-kernels", "--lib"]);
        command.args(["--", "--exact", "--nocapture", test]);
        let output = process::output(&mut command, LIMIT)?;
        let covered = covered(&output).context("the kernel tests name no instruction set")?;
        say!("instruction sets covered: {covered}");
        if is_gate() && cfg!(target_arch = "x86_64") && !covered.contains("avx2") {
            bail!("this machine has no AVX2: the AVX2 kernels were not tested");
        }
        Ok(())
    }

    /// Cargo as tests want it: with the models, and with the instruction set left to the tests.
    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = process::cargo(self.workspace.root(), args);
        command.env_remove("TERCEL_ISA");
        command.envs(self.files.iter().map(|(variable, path)| (variable, path)));
        command
    }
}

/// What the user's arguments choose.
#[derive(Debug, PartialEq, Eq)]
struct Selection {
    /// Names given by `-p`; none means all.
    packages: Vec<String>,
    /// Names of tests and flags of the runner.
    rest: Vec<String>,
}

impl Selection {
    fn of(args: &[String]) -> Self {
        let (mut packages, mut rest) = (Vec::new(), Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let attached = ["--package=", "-p"]
                .iter()
                .find_map(|flag| arg.strip_prefix(flag));
            match attached {
                _ if arg == "-p" || arg == "--package" => packages.extend(args.next().cloned()),
                Some(name) => packages.push(name.to_owned()),
                None => rest.push(arg.clone()),
            }
        }
        Self { packages, rest }
    }

    fn packages(&self) -> Vec<String> {
        if self.packages.is_empty() {
            return vec!["--workspace".to_owned()];
        }
        self.packages
            .iter()
            .map(|name| format!("--package={name}"))
            .collect()
    }
}

/// What follows `covered:` in the output of the kernel tests.
pub(crate) fn covered(output: &str) -> Option<&str> {
    let mut lines = output.lines();
    lines.find_map(|line| line.split_once("covered: ").map(|(_, sets)| sets.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_the_rest() {
        let of = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Selection::of(&args)
        };
        for (line, packages, rest) in [
            ("", "", ""),
            ("-p a", "a", ""),
            ("-pa --package b --package=c", "a b c", ""),
            ("name --release -p a", "a", "name --release"),
        ] {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let want = Selection {
                packages: words(packages),
                rest: words(rest),
            };
            assert_eq!(of(line), want, "{line}");
        }
        assert_eq!(of("name").packages(), ["--workspace"]);
        assert_eq!(of("-p a -p b").packages(), ["--package=a", "--package=b"]);
    }

    #[test]
    fn the_covered_sets_are_read_from_the_output() {
        let output = "\nrunning 1 test\ncovered: [\"scalar\", \"avx2\"]\n.\n";
        assert_eq!(covered(output), Some("[\"scalar\", \"avx2\"]"));
        assert_eq!(covered("running 0 tests"), None);
    }
}
