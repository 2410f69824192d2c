//! The public clients of the protocols that `tercel serve` speaks, unchanged, against the built
//! command with a real model.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{models, process, test};

/// The tests, in the workspace.
const FOLDER: &str = "tests/clients";
const REQUIREMENTS: &str = "requirements.txt";
/// More than a run takes; each test is ended much earlier (`tests/clients/pytest.ini`).
const LIMIT: Duration = Duration::from_secs(1800);

/// Builds the command, installs the clients into `target/clients`, and runs the tests that `args`
/// choose, by default all that take no minutes.
///
/// # Errors
/// When the model or a client cannot be had, or a test fails.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    build(workspace)?;
    run_built(workspace, args)
}

/// [`run`] with the command as it is.
fn run_built(workspace: &Workspace, args: &[String]) -> Result<()> {
    let Some(python) = python() else {
        bail!("Python was not found (python3, 3.10 or later), for which the clients are");
    };
    let mut files = models::provide_some(workspace, &["smollm2:135m"])?;
    files.push(("TERCEL_BINARY", command(workspace)));
    let folder = workspace.root().join(FOLDER);
    let python = installed(workspace, python, &folder.join(REQUIREMENTS))?;
    let mut pytest = Command::new(python);
    pytest.args(["-B", "-m", "pytest"]).args(args);
    pytest.current_dir(folder).envs(files);
    process::run(&mut pytest, LIMIT)
}

/// [`run`] after all other tests, which have built the command, or a word on why not: a desk may
/// lack Python, a gate may not.
///
/// # Errors
/// Those of [`run`].
pub(crate) fn run_if_possible(workspace: &Workspace) -> Result<()> {
    if python().is_none() && !test::is_gate() {
        say!("the public clients were not tried: Python was not found");
        return Ok(());
    }
    run_built(workspace, &[])
}

/// The build that the other tests run, too.
fn build(workspace: &Workspace) -> Result<()> {
    let args = ["build", "--package=tercel-cli"];
    process::run(&mut process::cargo(workspace.root(), &args), LIMIT)
}

fn command(workspace: &Workspace) -> PathBuf {
    let name = format!("tercel{}", std::env::consts::EXE_SUFFIX);
    workspace.target().join("debug").join(name)
}

/// The first Python that can make environments.
fn python() -> Option<&'static str> {
    let can = |name: &&str| {
        let mut python = Command::new(name);
        python.args([
            "-c",
            "import ensurepip, venv, sys; assert sys.version_info >= (3, 10)",
        ]);
        let quiet = python.stdin(Stdio::null()).stdout(Stdio::null());
        quiet
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["python3", "python"].into_iter().find(can)
}

/// The Python of an environment with what `requirements` names. It is made anew when the list
/// changes.
fn installed(workspace: &Workspace, python: &str, requirements: &Path) -> Result<PathBuf> {
    const INSTALL: Duration = Duration::from_secs(900);
    let folder = workspace.target().join("clients");
    let environment = folder.join("python");
    let inside = environment.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    // Written last: what was installed in part is not taken for whole.
    let stamp = folder.join(REQUIREMENTS);
    if is_current(&stamp, &wanted) && inside.is_file() {
        return Ok(inside);
    }
    if environment.exists() {
        fs::remove_dir_all(&environment)?;
    }
    fs::create_dir_all(&folder)?;
    let mut make = Command::new(python);
    process::run(make.args(["-m", "venv"]).arg(&environment), INSTALL)?;
    let mut install = Command::new(&inside);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    install.args([OsStr::new("--requirement"), requirements.as_os_str()]);
    process::run(&mut install, INSTALL)?;
    fs::write(&stamp, wanted)?;
    Ok(inside)
}

fn is_current(stamp: &Path, wanted: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|found| found == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_one_exact_version() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(FOLDER);
        let text = fs::read_to_string(path.join(REQUIREMENTS)).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pinned: Vec<&str> = lines.map(|line| line.split_once("==").unwrap().0).collect();
        for client in ["openai", "anthropic", "ollama", "litellm", "schemathesis"] {
            assert!(pinned.contains(&client), "{client}");
        }
    }

    #[test]
    fn another_list_is_installed_anew() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(is_current(&path, &text));
        assert!(!is_current(&path, "another==1.0.0\n"));
        assert!(!is_current(Path::new("/no/such/stamp"), &text));
    }
}
