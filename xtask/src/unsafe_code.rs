//! Where `unsafe` may stand: in the kernels, in the module that maps a file, and in the one that asks the
//! allocator.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Package, TargetKind};

use crate::workspace::Workspace;

/// Crates that are made of `unsafe`: each block says why it is sound, which a lint asks for.
const FREE: &[&str] = &["tercel-kernels", "tercel-gpu", "tercel-ffi"];

/// A crate with exceptions: everything but these files is as strict as the others.
const EXCEPTIONS: (&str, &[&str]) = (
    "tercel",
    &["src/files/weights.rs", "src/memory/allocator.rs"],
);

const FORBID: &str = "#![forbid(unsafe_code)]";
const DENY: &str = "#![deny(unsafe_code)]";

/// Checks what every crate says about `unsafe`.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut violations = Vec::new();
    for package in workspace.packages() {
        if !FREE.contains(&package.name.as_str()) {
            violations.extend(violations_of(package)?);
        }
    }
    if violations.is_empty() {
        return Ok(());
    }
    bail!("{}", violations.join("; "))
}

fn violations_of(package: &Package) -> Result<Vec<String>> {
    let has_exception = package.name == EXCEPTIONS.0;
    let wanted = if has_exception { DENY } else { FORBID };
    let mut violations = Vec::new();
    for target in &package.targets {
        let is_product = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
        if target.kind.iter().any(is_product) {
            let path = target.src_path.as_std_path();
            if !read(path)?.lines().any(|line| line == wanted) {
                violations.push(format!("{} does not say {wanted}", path.display()));
            }
        }
    }
    if has_exception {
        let directory = package.manifest_path.as_std_path().with_file_name("");
        violations.extend(exceptions(&directory)?);
    }
    Ok(violations)
}

/// Files that lift the ban though they are none of those that may.
fn exceptions(directory: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for path in sources(&directory.join("src"))? {
        let is_allowed = EXCEPTIONS.1.iter().any(|it| path == directory.join(it));
        let text = read(&path)?;
        let lifts = text
            .lines()
            .any(|line| line.contains("unsafe_code") && line.trim() != DENY);
        if lifts && !is_allowed {
            violations.push(format!(
                "{} lifts the ban on unsafe, only {} may",
                path.display(),
                EXCEPTIONS.1.join(" and ")
            ));
        }
    }
    Ok(violations)
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_forbids_unsafe_where_it_should() {
        check(&Workspace::load().unwrap()).unwrap();
    }
}
