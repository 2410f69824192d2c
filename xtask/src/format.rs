//! The formatting of all code, that of the fuzz targets included.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Checks that `cargo fmt` has nothing to change.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(300);
    for args in [
        &["fmt", "--all", "--check"][..],
        &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"],
    ] {
        let mut command = process::cargo(workspace.root(), args);
        process::run(&mut command, LIMIT)
            .context("the code is not formatted: run `cargo fmt --all`")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_code_is_formatted() {
        check(&Workspace::load().unwrap()).unwrap();
    }
}
