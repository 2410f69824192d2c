//! Everything that must hold before a change is merged, with a summary at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{arm64, budget, direction, documents, format, loom, process, test, unsafe_code};

const LIMIT: Duration = Duration::from_secs(1800);

/// Runs every step, also after one that failed, and prints how each went.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let steps: [(&str, Step); 11] = [
        ("formatting", |w| format::check(w).map(|()| Outcome::Passed)),
        ("crate map", |w| {
            direction::check(w).map(|()| Outcome::Passed)
        }),
        ("unsafe code", |w| {
            unsafe_code::check(w).map(|()| Outcome::Passed)
        }),
        ("documents", |w| {
            documents::check(w).map(|()| Outcome::Passed)
        }),
        ("packages", |w| budget::print(w).map(|()| Outcome::Passed)),
        ("lints", |w| lint(w).map(|()| Outcome::Passed)),
        ("api docs", |w| api_docs(w).map(|()| Outcome::Passed)),
        ("dependencies", dependencies),
        ("loom", |w| loom::run(w).map(|()| Outcome::Passed)),
        ("aarch64", |w| arm64::run(w).map(|()| Outcome::Passed)),
        ("tests", |_| test::run(&[], false).map(|()| Outcome::Passed)),
    ];
    let mut rows = Vec::new();
    for (name, step) in steps {
        eprintln!("\n== {name}");
        let started = Instant::now();
        let result = step(&workspace);
        if let Err(error) = &result {
            eprintln!("error: {error:#}");
        }
        rows.push((name, result, started.elapsed()));
    }
    say!("\n{}", summary(&rows));
    let failed: Vec<&str> = rows
        .iter()
        .filter(|(_, result, _)| result.is_err())
        .map(|(name, ..)| *name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

type Step = fn(&Workspace) -> Result<Outcome>;

/// How a step that did not fail went.
enum Outcome {
    Passed,
    /// It could not run, for this reason.
    Skipped(&'static str),
}

/// Clippy over all targets; any warning fails.
pub(crate) fn lint(workspace: &Workspace) -> Result<()> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny=warnings",
    ];
    process::run(&mut process::cargo(workspace.root(), &args), LIMIT)
}

/// The documentation of the libraries; a broken link fails.
fn api_docs(workspace: &Workspace) -> Result<()> {
    // Without the binaries: the command and the library are both called tercel.
    let args = ["doc", "--workspace", "--no-deps", "--lib"];
    let mut command = process::cargo(workspace.root(), &args);
    process::run(command.env("RUSTDOCFLAGS", "--deny=warnings"), LIMIT)
}

/// Advisories, licences and duplicates, by `deny.toml`.
fn dependencies(workspace: &Workspace) -> Result<Outcome> {
    if !process::has_plugin(workspace.root(), "deny") {
        return Ok(Outcome::Skipped("cargo-deny is not installed"));
    }
    process::run(
        &mut process::cargo(workspace.root(), &["deny", "check"]),
        LIMIT,
    )?;
    Ok(Outcome::Passed)
}

fn summary(rows: &[(&str, Result<Outcome>, Duration)]) -> String {
    let mut lines = vec![format!("{:<14} {:>8}  result", "step", "seconds")];
    for (name, result, time) in rows {
        let result = match result {
            Ok(Outcome::Passed) => "ok".to_owned(),
            Ok(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
            Err(_) => "FAILED".to_owned(),
        };
        lines.push(format!("{name:<14} {:>8.1}  {result}", time.as_secs_f64()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_line_for_each_step() {
        let rows = [
            ("lints", Ok(Outcome::Passed), Duration::from_millis(1500)),
            ("deny", Ok(Outcome::Skipped("not there")), Duration::ZERO),
            (
                "tests",
                Err(anyhow::anyhow!("one failed")),
                Duration::from_secs(60),
            ),
        ];
        let want = "step            seconds  result\n\
                    lints               1.5  ok\n\
                    deny                0.0  skipped: not there\n\
                    tests              60.0  FAILED";
        assert_eq!(summary(&rows), want);
    }
}
