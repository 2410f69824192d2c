//! Commands that are shown before they run and do not run for ever.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The cargo that runs this program, so that all work is done by one toolchain.
pub(crate) fn cargo(root: &std::path::Path, args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).current_dir(root);
    command
}

/// Runs a command whose output goes to the terminal.
///
/// # Errors
/// When it cannot start, fails, or takes longer than `limit`: it is ended then.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let mut child = start(command.stdin(Stdio::null()), &shown)?;
    judge(wait(&mut child, limit, &shown)?, &shown)
}

/// Runs a command and gives what it wrote to stdout; stderr goes to the terminal.
///
/// # Errors
/// As [`run`], and when the output is not UTF-8.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = shown(command);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = start(command, &shown)?;
    let mut pipe = child.stdout.take().context("stdout is piped")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    judge(wait(&mut child, limit, &shown)?, &shown)?;
    match reader.join() {
        Ok(text) => text.with_context(|| format!("cannot read the output of `{shown}`")),
        Err(_) => bail!("cannot read the output of `{shown}`"),
    }
}

/// Whether `cargo NAME --version` runs, which is how cargo finds its plugins.
pub(crate) fn has_plugin(root: &std::path::Path, name: &str) -> bool {
    let mut command = cargo(root, &[name, "--version"]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn start(command: &mut Command, shown: &str) -> Result<Child> {
    command
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))
}

fn wait(child: &mut Child, limit: Duration, shown: &str) -> Result<ExitStatus> {
    const POLL: Duration = Duration::from_millis(20);
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > limit {
            // It may have ended in between, which is as good.
            let _ = child.kill();
            child.wait()?;
            bail!(
                "`{shown}` took longer than {} minutes",
                limit.as_secs() / 60
            );
        }
        thread::sleep(POLL);
    }
}

fn judge(status: ExitStatus, shown: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    bail!("`{shown}` failed ({status})")
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_stem().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn commands_end_well_badly_or_at_their_limit() {
        let minute = Duration::from_secs(60);
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(output(&mut shell("echo out"), minute).unwrap(), "out\n");
        run(&mut shell("exit 0"), minute).unwrap();
        let failed = run(&mut shell("exit 3"), minute).unwrap_err().to_string();
        assert_eq!(failed, "`sh -c exit 3` failed (exit status: 3)");
        let started = Instant::now();
        let late = run(&mut shell("exec sleep 50"), Duration::from_millis(50));
        assert!(late.unwrap_err().to_string().contains("took longer"));
        assert!(started.elapsed() < Duration::from_secs(20));
        let missing = run(&mut Command::new("no-such-program"), minute).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("cannot start `no-such-program`")
        );
    }
}
