//! The fuzz targets, each for a while.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Runs one target, or all in turn, for `seconds` each.
pub(crate) fn run(target: Option<&str>, seconds: u64) -> Result<()> {
    const BUILD: Duration = Duration::from_secs(1800);
    let workspace = Workspace::load()?;
    let targets = chosen(&targets(&workspace)?, target)?;
    if !process::has_plugin(workspace.root(), "fuzz") {
        bail!("cargo-fuzz is not installed: run `cargo install cargo-fuzz --locked`");
    }
    for target in &targets {
        let seconds_flag = format!("-max_total_time={seconds}");
        let args = ["fuzz", "run", target, "--", &seconds_flag];
        let mut command = process::cargo(workspace.root(), &args);
        // Lets the stable compiler take the flags of the sanitizer.
        command.env("RUSTC_BOOTSTRAP", "1");
        process::run(&mut command, BUILD + Duration::from_secs(seconds))?;
    }
    say!("no crash in {seconds} seconds each: {}", targets.join(", "));
    Ok(())
}

/// The names of all targets, in order.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let fuzz = Workspace::at(&workspace.root().join("fuzz/Cargo.toml"))?;
    let packages = fuzz.packages().iter();
    let binaries = packages.flat_map(|package| &package.targets);
    let mut names: Vec<String> = binaries
        .filter(|target| target.is_bin())
        .map(|target| target.name.clone())
        .collect();
    names.sort();
    Ok(names)
}

fn chosen(all: &[String], target: Option<&str>) -> Result<Vec<String>> {
    let Some(target) = target else {
        return Ok(all.to_vec());
    };
    if !all.iter().any(|name| name == target) {
        bail!("no fuzz target `{target}` (there are: {})", all.join(", "));
    }
    Ok(vec![target.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_of_those_there_are() {
        let all = targets(&Workspace::load().unwrap()).unwrap();
        assert!(all.contains(&"gguf".to_owned()), "{all:?}");
        assert_eq!(chosen(&all, None).unwrap(), all);
        assert_eq!(chosen(&all, Some("gguf")).unwrap(), ["gguf"]);
        let error = chosen(&all, Some("pdf")).unwrap_err().to_string();
        assert!(error.contains("`pdf`") && error.contains("gguf"), "{error}");
    }
}
