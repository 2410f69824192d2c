//! The documents: what they point to exists, their example compiles, and every dependency is
//! accounted for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// The documentation of the library, whose example is compiled with the tests.
const LIBRARY: &str = "crates/tercel/src/lib.rs";

/// Where each direct dependency has a row that starts with its name.
const DEPENDENCIES: &str = "docs/dependencies.md";

/// Directories of builds and of packages, whose documents are not ours.
const OTHERS: [&str; 2] = ["target", "node_modules"];

/// Checks every Markdown file outside build directories, and the table of dependencies.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = workspace.root();
    let mut problems = Vec::new();
    for path in documents(root)? {
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        if let Some(line) = text.lines().position(|line| !line.is_ascii()) {
            problems.push(format!("{shown}:{} is not ASCII", line + 1));
        }
        let directory = path.parent().unwrap_or(root);
        for link in local_links(&text).filter(|link| !directory.join(link).exists()) {
            problems.push(format!("{shown} links to `{link}`, which does not exist"));
        }
        for name in named_paths(&text).filter(|name| !root.join(name).exists()) {
            problems.push(format!("{shown} names `{name}`, which does not exist"));
        }
    }
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))
    };
    if markdown_example(&read("README.md")?) != library_example(&read(LIBRARY)?) {
        problems.push(format!(
            "the example of README.md is not the one of {LIBRARY}"
        ));
    }
    problems.extend(unexplained(workspace)?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("; "))
}

/// Direct dependencies without a row, and rows without a dependency.
fn unexplained(workspace: &Workspace) -> Result<Vec<String>> {
    let table = fs::read_to_string(workspace.root().join(DEPENDENCIES))
        .with_context(|| format!("cannot read {DEPENDENCIES}"))?;
    let rows = rows(&table);
    let fuzz = Workspace::at(&workspace.root().join("fuzz/Cargo.toml"))?;
    let packages = workspace.packages().iter().chain(fuzz.packages());
    let used: BTreeSet<String> = packages
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.path.is_none())
        .map(|dependency| dependency.name.clone())
        .collect();
    let missing = used
        .difference(&rows)
        .map(|name| format!("`{name}` has no row"));
    let stale = rows
        .difference(&used)
        .map(|name| format!("nothing uses `{name}` any more"));
    let problems = missing.chain(stale);
    Ok(problems
        .map(|problem| format!("{DEPENDENCIES}: {problem}"))
        .collect())
}

/// The names in the first column: "| `name` | ...".
fn rows(table: &str) -> BTreeSet<String> {
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `"));
    cells
        .filter_map(|rest| rest.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The first Rust example of a Markdown text.
fn markdown_example(text: &str) -> Option<String> {
    let code = text.split_once("```rust\n")?.1.split_once("\n```")?.0;
    Some(code.to_owned())
}

/// The first example in the documentation of a crate, as its readers see it.
fn library_example(source: &str) -> Option<String> {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n");
    let code = text.split_once("```no_run\n")?.1.split_once("\n```")?.0;
    let visible = code.lines().filter(|line| !line.starts_with("# "));
    Some(visible.collect::<Vec<_>>().join("\n"))
}

/// Paths in code font that begin with a directory of the workspace, patterns left out.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    const DIRECTORIES: [&str; 5] = ["crates/", "docs/", "fuzz/", "test-data/", "xtask/"];
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|code| {
        let is_path = DIRECTORIES
            .iter()
            .any(|directory| code.starts_with(directory));
        is_path && !code.contains(|c: char| c.is_whitespace() || "<{*".contains(c))
    })
}

/// Targets of links to files, without their anchors.
fn local_links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':'))
}

fn documents(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !OTHERS.contains(&&*name) {
                found.extend(documents(&path)?);
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_without_their_anchors() {
        let text = "[a](docs/a.md) [b](b.md#part) [c](#here) [d](https://example.com) ](";
        assert_eq!(local_links(text).collect::<Vec<_>>(), ["docs/a.md", "b.md"]);
    }

    #[test]
    fn paths_are_told_from_other_code() {
        let text = "`crates/a.rs`, `let x`, `crates/<b>.rs`, crates/c.rs, `docs/d e`, `xtask/`";
        let paths: Vec<_> = named_paths(text).collect();
        assert_eq!(paths, ["crates/a.rs", "xtask/"]);
    }

    #[test]
    fn examples_are_compared_as_readers_see_them() {
        let markdown = "text\n```sh\nx\n```\n```rust\nlet a = 1;\n\nuse_it(a);\n```\n";
        let library = "//! Text.\n//!\n//! ```no_run\n//! let a = 1;\n//!\n//! use_it(a);\n\
                       //! # hidden();\n//! ```\nmod b;\n";
        assert_eq!(markdown_example(markdown), library_example(library));
        assert_eq!(markdown_example("no example"), None);
        assert_ne!(markdown_example(markdown), library_example("//! Text.\n"));
    }

    #[test]
    fn rows_are_named_by_their_first_column() {
        let table = "| crate | why |\n| --- | --- |\n| `a-b` | for `c` |\ntext `d`\n";
        assert_eq!(rows(table), BTreeSet::from(["a-b".to_owned()]));
    }

    #[test]
    fn the_documents_hold() {
        check(&Workspace::load().unwrap()).unwrap();
    }
}
