//! Instructions of the hot kernels, which are the same on a busy machine: recorded for each
//! release, and checked against the record.

mod compare;
mod measure;
mod record;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::test;
use crate::workspace::Workspace;
use compare::Finding;
use measure::{Measurement, Missing};
use record::Record;

/// Where the counts are kept.
const FILE: &str = "docs/instruction-counts.md";
/// The crate whose version the counts belong to.
const PACKAGE: &str = "tercel-kernels";

/// What to do with new counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Write them as those of this version.
    Record,
    /// Compare them with the newest that are recorded.
    Check,
}

impl Counts {
    /// Reads what follows `counts`.
    ///
    /// # Errors
    /// With the argument that is wrong.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        match args {
            [] => Ok(Self::Record),
            [flag] if flag == "--check" => Ok(Self::Check),
            [other, ..] => Err(format!("unexpected `{other}`")),
        }
    }

    /// Counts, and records or checks.
    ///
    /// # Errors
    /// [`Missing`] where nothing can be counted; when a run fails; and, for a check, when the
    /// counts are not those recorded or lower.
    pub(crate) fn run(self, workspace: &Workspace) -> Result<()> {
        let path = workspace.root().join(FILE);
        let record = match fs::read_to_string(&path) {
            Ok(text) => Record::parse(&text).with_context(|| format!("cannot read {FILE}"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {FILE}")),
        };
        let measurement = Measurement::take(workspace)?;
        let findings = compare::findings(&record, &measurement.counts);
        if !record.releases.is_empty() {
            for (case, finding) in &findings {
                say!("{case}: {finding}");
            }
        }
        match self {
            Self::Check => judge(&record, &measurement, &findings),
            Self::Record => write(record, measurement, &version(workspace)?, &path),
        }
    }
}

/// [`Counts::Check`] as a part of all tests: where nothing can be counted, that is said, and is a
/// failure only where a change is checked for others.
///
/// # Errors
/// Those of [`Counts::run`].
pub(crate) fn check_if_possible(workspace: &Workspace) -> Result<()> {
    match measure::missing() {
        Some(missing @ Missing::Valgrind) if test::is_gate() => Err(missing.into()),
        Some(missing) => {
            say!("instruction counts: skipped, {missing}");
            Ok(())
        }
        None => Counts::Check.run(workspace),
    }
}

fn judge(record: &Record, measurement: &Measurement, findings: &[(String, Finding)]) -> Result<()> {
    let Some(newest) = record.releases.last() else {
        bail!("{FILE} has no counts: run `cargo xtask counts` to record them");
    };
    let cases = measurement.counts.len();
    let failed = findings.iter().filter(|(_, finding)| finding.is_failure());
    let failed: Vec<&str> = failed.map(|(case, _)| case.as_str()).collect();
    if failed.is_empty() {
        if !findings.is_empty() {
            say!("hint: run `cargo xtask counts` to record the lower counts");
        }
        say!("instruction counts: {cases} as in {}", newest.version);
        return Ok(());
    }
    let tools = if newest.tools == measurement.tools {
        String::new()
    } else {
        let (then, now) = (&newest.tools, &measurement.tools);
        format!("; they were recorded with {then}, and this is {now}")
    };
    bail!(
        "{FILE} does not hold for {}{tools}; where that is meant, run `cargo xtask counts` and commit \
         the file",
        failed.join(", ")
    )
}

fn write(mut record: Record, measurement: Measurement, version: &str, path: &Path) -> Result<()> {
    let cases = measurement.counts.len();
    record.set(version.to_owned(), measurement.tools, measurement.counts);
    fs::write(path, record.to_string()).with_context(|| format!("cannot write {FILE}"))?;
    say!("{FILE}: {cases} counts of {version}");
    Ok(())
}

fn version(workspace: &Workspace) -> Result<String> {
    let mut packages = workspace.packages().iter();
    let package = packages.find(|package| package.name.as_str() == PACKAGE);
    let package = package.with_context(|| format!("the workspace has no {PACKAGE}"))?;
    Ok(package.version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_recorded_or_checked() {
        let parsed = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Counts::parse(&args)
        };
        assert_eq!(parsed(""), Ok(Counts::Record));
        assert_eq!(parsed("--check"), Ok(Counts::Check));
        for line in ["--fast", "--check --fast", "check"] {
            assert!(parsed(line).unwrap_err().contains("unexpected"), "{line}");
        }
    }

    #[test]
    fn the_file_is_as_it_would_be_written() {
        let workspace = Workspace::load().unwrap();
        let text = fs::read_to_string(workspace.root().join(FILE)).unwrap();
        let record = Record::parse(&text).unwrap();
        assert_eq!(record.to_string(), text);
        assert!(!record.releases.is_empty());
    }
}
