//! How many packages a user builds.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// Prints the number of packages behind the `tercel` command on Linux, our own included.
pub(crate) fn print(workspace: &Workspace) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(300);
    let args = [
        "tree",
        "--package=tercel-cli",
        "--edges=normal",
        "--target=x86_64-unknown-linux-gnu",
        "--prefix=none",
        "--format={p}",
    ];
    let tree = process::output(&mut process::cargo(workspace.root(), &args), LIMIT)?;
    say!("the tercel command is made of {} packages", count(&tree));
    Ok(())
}

/// Distinct packages in the output of `cargo tree`, where repeated ones carry a star.
fn count(tree: &str) -> usize {
    let packages = tree.lines().map(|line| line.trim_end_matches(" (*)"));
    packages
        .filter(|line| !line.is_empty())
        .collect::<BTreeSet<_>>()
        .len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_once() {
        assert_eq!(count("a v1.0.0\nb v2.0.0\n\na v1.0.0 (*)\na v1.1.0\n"), 3);
    }
}
