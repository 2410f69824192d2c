//! What threads share, in every order of events: the tests named `models`, under loom.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// A model runs for a second or so; the rest is compilation.
const LIMIT: Duration = Duration::from_secs(1800);
/// The crates that have models.
const PACKAGES: [&str; 2] = ["tercel-kernels", "tercel"];
/// How often a thread may be stopped where it did not wait: most mistakes need no more than two.
const PREEMPTIONS: &str = "2";

/// Runs all models, in a target folder of their own, since everything is compiled for them.
///
/// # Errors
/// When one fails, or a crate has none.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut args = vec!["test", "--profile=loom", "--lib"];
    let packages = PACKAGES.map(|name| format!("--package={name}"));
    args.extend(packages.iter().map(String::as_str));
    args.extend(["--", "models::"]);
    let mut command = process::cargo(workspace.root(), &args);
    command
        .env("RUSTFLAGS", flags())
        .env("CARGO_TARGET_DIR", workspace.target().join("loom"))
        .env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS);
    let output = process::output(&mut command, LIMIT)?;
    say!("{output}");
    let passed = passed(&output);
    if passed.len() != PACKAGES.len() || passed.contains(&0) {
        bail!(
            "each of {} must have models: {passed:?} ran",
            PACKAGES.join(", ")
        );
    }
    say!("{} models hold", passed.iter().sum::<usize>());
    Ok(())
}

/// The user's own flags and loom's.
fn flags() -> String {
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    format!("{own} --cfg loom").trim_start().to_owned()
}

/// How many tests passed in each test program.
fn passed(output: &str) -> Vec<usize> {
    let results = output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "));
    let numbers = results.filter_map(|line| line.split_once(" passed")?.0.parse().ok());
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_for_each_program() {
        let output = "\nrunning 1 test\ntest a ... ok\n\n\
                      test result: ok. 6 passed; 0 failed; 0 ignored\n\
                      test result: ok. 0 passed; 0 failed; 0 ignored\n";
        assert_eq!(passed(output), [6, 0]);
        assert!(passed("error: no such package").is_empty());
    }
}
