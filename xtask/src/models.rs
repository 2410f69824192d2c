//! The real models that tests run on.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// A model, and the variable by which tests find its file.
pub(crate) const MODELS: [(&str, &str); 2] = [
    ("smollm2:135m", "TERCEL_TEST_SMOLLM2"),
    ("gemma3:270m", "TERCEL_TEST_GEMMA3"),
];

/// The variables of all models, with files that exist.
///
/// A variable that is set already is believed. The other models are pulled, by a release build of
/// our own command and into the user's own store, so that they are fetched once for all runs.
///
/// # Errors
/// When a model cannot be had: no test is skipped for want of one.
pub(crate) fn provide(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    provide_some(workspace, &MODELS.map(|(model, _)| model))
}

/// [`provide`] for the models with these names.
pub(crate) fn provide_some(
    workspace: &Workspace,
    names: &[&str],
) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut found = Vec::new();
    let mut wanted = Vec::new();
    for (model, variable) in MODELS.into_iter().filter(|(name, _)| names.contains(name)) {
        match std::env::var_os(variable) {
            Some(path) if !path.is_empty() => found.push((variable, existing(variable, path)?)),
            _ => wanted.push((model, variable)),
        }
    }
    if !wanted.is_empty() {
        build(workspace)?;
    }
    for (model, variable) in wanted {
        found.push((variable, pull(workspace, model)?));
    }
    Ok(found)
}

/// A path that the user gave.
fn existing(variable: &str, path: std::ffi::OsString) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if !path.is_file() {
        bail!(
            "{variable} is `{}`, which is no file: unset it to have the model pulled",
            path.display()
        );
    }
    Ok(path)
}

fn build(workspace: &Workspace) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(1800);
    let args = ["build", "--release", "--package=tercel-cli"];
    process::run(&mut process::cargo(workspace.root(), &args), LIMIT)
}

fn pull(workspace: &Workspace, model: &str) -> Result<PathBuf> {
    const PULL: Duration = Duration::from_secs(1800);
    const LIST: Duration = Duration::from_secs(60);
    let tercel = |args: &[&str]| {
        let mut command = Command::new(workspace.tercel());
        command.args(args);
        // A model in the cache of the Hub's own tools would not get into the store, and a list
        // of the store would not show it.
        command.env("HF_HUB_CACHE", workspace.root().join("target/no-hub-cache"));
        command
    };
    process::run(&mut tercel(&["pull", model]), PULL)?;
    let list = process::output(&mut tercel(&["list", "--json"]), LIST)?;
    let path = path_of(&list, model)?;
    if !path.is_file() {
        bail!(
            "`tercel list` says `{model}` is {}, which is no file",
            path.display()
        );
    }
    Ok(path)
}

/// The path of a model in the output of `tercel list --json`.
fn path_of(list: &str, model: &str) -> Result<PathBuf> {
    let list: Value = serde_json::from_str(list).context("`tercel list --json` gave no JSON")?;
    let mut models = list["models"].as_array().into_iter().flatten();
    let row = models.find(|row| row["name"] == model);
    let path = row.and_then(|row| row["path"].as_str());
    let path = path.with_context(|| format!("`tercel list --json` does not list `{model}`"))?;
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_path_of_a_model_is_found_by_its_name() {
        let list = r#"{"models":[{"name":"a","path":"/x"},{"name":"b:1","path":"/y"}]}"#;
        assert_eq!(path_of(list, "b:1").unwrap(), Path::new("/y"));
        for (list, part) in [
            (list, "does not list `c`"),
            (r#"{"models":[{"name":"c"}]}"#, "does not list `c`"),
            ("{}", "does not list"),
            ("no models", "no JSON"),
        ] {
            let error = format!("{:#}", path_of(list, "c").unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_path_from_the_user_must_exist() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(existing("V", manifest.into()).unwrap(), Path::new(manifest));
        let error = existing("V", "/no/such/model".into())
            .unwrap_err()
            .to_string();
        assert!(error.contains("V is `/no/such/model`"), "{error}");
    }
}
