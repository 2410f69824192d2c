//! The kernels on a processor that this machine is not: their tests, built for aarch64, under qemu.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{process, test};

const LIMIT: Duration = Duration::from_secs(1800);
const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Instruction sets that the emulated processor must have run.
const DECLARED: [&str; 4] = ["scalar", "neon", "neon-dotprod", "neon-i8mm"];
/// Where Debian's `rustc-web` puts the compiler that knows `libstd-rust-web-dev:arm64`.
const DEBIAN_COMPILER: &str = "/usr/bin/rustc";

/// Runs the tests of all operations, in a target folder of their own.
///
/// # Errors
/// When a tool is missing, a test fails, or an instruction set that is declared did not run.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    if cfg!(target_arch = "aarch64") {
        say!("this processor is aarch64: the tests are run on it anyway");
        return Ok(());
    }
    for tool in [LINKER, EMULATOR] {
        if !starts(tool) {
            bail!("`{tool}` is missing; {}", how_to_install());
        }
    }
    let compiler = compiler()?;
    let args = [
        "test",
        "--quiet",
        "--package=tercel-kernels",
        "--lib",
        "--target",
        TARGET,
        "--",
        "--nocapture",
        "ops::",
        "dispatch::",
    ];
    let mut command = process::cargo(workspace.root(), &args);
    let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", shouted(TARGET));
    command
        .env("RUSTC", compiler)
        .env("CARGO_TARGET_DIR", workspace.target().join("arm64"))
        .env(variable("LINKER"), LINKER)
        .env(variable("RUNNER"), format!("{EMULATOR} -cpu max"))
        // Static: qemu 7.2 never comes back from making a thread in a program that is not.
        .env(variable("RUSTFLAGS"), "-C target-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("TERCEL_ISA");
    let output = process::output(&mut command, LIMIT)?;
    let covered = test::covered(&output).context("the kernel tests name no instruction set")?;
    say!("instruction sets covered on aarch64: {covered}");
    let missing = missing(covered);
    if !missing.is_empty() {
        bail!("not tested on aarch64: {}", missing.join(", "));
    }
    Ok(())
}

/// The toolchain's own compiler if it has the target's library, or Debian's.
fn compiler() -> Result<PathBuf> {
    [Path::new("rustc"), Path::new(DEBIAN_COMPILER)]
        .into_iter()
        .find(|compiler| has_library(compiler))
        .map(Path::to_owned)
        .with_context(|| format!("no Rust library for {TARGET}; {}", how_to_install()))
}

fn has_library(compiler: &Path) -> bool {
    let mut command = Command::new(compiler);
    command.args(["--print=target-libdir", "--target", TARGET]);
    let folder = match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => output.stdout,
        _ => return false,
    };
    let folder = String::from_utf8_lossy(&folder);
    std::fs::read_dir(folder.trim()).is_ok_and(|mut files| files.next().is_some())
}

fn starts(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg("--version").stdin(Stdio::null());
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok()
}

fn how_to_install() -> &'static str {
    "install it: on Debian `dpkg --add-architecture arm64 && apt-get update && apt-get install \
     rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user`; \
     elsewhere `rustup target add aarch64-unknown-linux-gnu`, a linker and qemu"
}

/// A target as environment variables spell it.
fn shouted(target: &str) -> String {
    target.to_uppercase().replace('-', "_")
}

/// Declared sets that a list like `["scalar", "neon"]` lacks.
fn missing(covered: &str) -> Vec<&'static str> {
    let is_missing = |set: &&str| !covered.contains(&format!("\"{set}\""));
    DECLARED.into_iter().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_did_not_run_is_named() {
        let all = r#"["scalar", "neon", "neon-dotprod", "neon-i8mm"]"#;
        assert!(missing(all).is_empty());
        assert_eq!(
            missing(r#"["scalar", "neon-dotprod"]"#),
            ["neon", "neon-i8mm"]
        );
        assert_eq!(missing("").len(), DECLARED.len());
    }
}
