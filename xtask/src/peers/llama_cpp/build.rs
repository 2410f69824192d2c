//! Where llama.cpp comes from: the source that a Python package carries, built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::process;

const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";
/// The name of the source distribution, less `.tar.gz`.
const FOLDER: &str = "llama_cpp_python-0.3.36";
const SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";
const PROGRAMS: [&str; 4] = [
    "llama-bench",
    "llama-completion",
    "llama-server",
    "llama-perplexity",
];
/// As fast as it gets on this machine, and without what a measurement does not need.
const SETTINGS: [&str; 7] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
];

/// The folder of the programs, and a line about what they are.
pub(super) fn provide(cache: &Path, is_build_forbidden: bool) -> Result<(PathBuf, String)> {
    let source = cache.join(FOLDER).join("vendor/llama.cpp");
    let build = source.join("build");
    let programs = build.join("bin");
    let exists = |name: &str| {
        programs
            .join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
            .is_file()
    };
    if is_build_forbidden {
        if !exists("llama-bench") {
            bail!("there is no llama-bench in {}", programs.display());
        }
    } else if !PROGRAMS.into_iter().all(exists) {
        if !has("cmake") {
            bail!(
                "llama.cpp is built with cmake, which was not found: install it, or pass `--without llama.cpp`"
            );
        }
        if !source.join("CMakeLists.txt").is_file() {
            fetch(cache)?;
        }
        make(&source, &build)?;
    }
    let settings = fs::read_to_string(build.join("CMakeCache.txt")).unwrap_or_default();
    Ok((programs, version(&settings)))
}

/// Downloads the package with pip, which knows the user's index, checks it, and unpacks it.
fn fetch(cache: &Path) -> Result<()> {
    const DOWNLOAD: Duration = Duration::from_secs(1800);
    fs::create_dir_all(cache)?;
    let name = format!("{FOLDER}.tar.gz");
    let archive = cache.join(&name);
    if !archive.is_file() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps"]);
        pip.args(["--no-binary", PACKAGE, "--dest"]).arg(cache);
        pip.arg(format!("{PACKAGE}=={VERSION}"));
        process::run(&mut pip, DOWNLOAD).context("llama.cpp cannot be had from PyPI")?;
    }
    let bytes = fs::read(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
    check(&bytes, SHA256).with_context(|| {
        let archive = archive.display();
        format!("{archive} is not the expected one: delete it to have it fetched again")
    })?;
    let mut unpack = Command::new("tar");
    unpack.args(["-xzf", &name]).current_dir(cache);
    process::run(&mut unpack, DOWNLOAD)
}

/// Builds the programs; what is built already is left as it is.
fn make(source: &Path, build: &Path) -> Result<()> {
    const CONFIGURE: Duration = Duration::from_secs(600);
    const BUILD: Duration = Duration::from_secs(3 * 3600);
    if !build.join("CMakeCache.txt").is_file() {
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(source).arg("-B").arg(build);
        configure.args(SETTINGS);
        process::run(&mut configure, CONFIGURE)?;
    }
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut make = Command::new("cmake");
    make.arg("--build").arg(build).args(["--config", "Release"]);
    make.args(["--parallel", &jobs.to_string(), "--target"])
        .args(PROGRAMS);
    process::run(&mut make, BUILD)
}

fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version");
    command.output().is_ok_and(|output| output.status.success())
}

fn check(bytes: &[u8], expected: &str) -> Result<()> {
    let found: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != expected {
        bail!("its SHA-256 is {found}, expected {expected}");
    }
    Ok(())
}

/// The package, and the settings of its build that matter for speed.
fn version(settings: &str) -> String {
    const SHOWN: [&str; 4] = [
        "CMAKE_BUILD_TYPE",
        "GGML_NATIVE",
        "GGML_OPENMP",
        "GGML_LLAMAFILE",
    ];
    let value = |name: &&str| {
        // NAME:TYPE=VALUE
        let mut lines = settings.lines();
        let line = lines.find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(':'))
        })?;
        let (_, value) = line.split_once('=')?;
        Some(format!("{name}={value}"))
    };
    let settings: Vec<String> = SHOWN.iter().filter_map(value).collect();
    format!("as vendored in {PACKAGE} {VERSION}, {}", settings.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_archive_is_told_from_the_pinned_one() {
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(b"", of_nothing).unwrap();
        let error = check(b"x", of_nothing).unwrap_err().to_string();
        assert!(
            error.contains("SHA-256") && error.contains(of_nothing),
            "{error}"
        );
        assert_eq!(FOLDER, format!("{}-{VERSION}", PACKAGE.replace('-', "_")));
    }

    #[test]
    fn the_version_says_how_it_was_built() {
        let cache = "//comment\nGGML_NATIVE:BOOL=ON\nGGML_NATIVE_X:BOOL=OFF\n\
                     CMAKE_BUILD_TYPE:STRING=Release\n";
        let want =
            "as vendored in llama-cpp-python 0.3.36, CMAKE_BUILD_TYPE=Release GGML_NATIVE=ON";
        assert_eq!(version(cache), want);
    }

    #[test]
    fn nothing_is_built_where_that_is_forbidden() {
        let error = provide(Path::new("/no/such/folder"), true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no llama-bench in /no/such/folder"),
            "{error}"
        );
    }
}
