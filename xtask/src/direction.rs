//! The map of the workspace: which crate may know which.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use cargo_metadata::DependencyKind;

use crate::workspace::Workspace;

/// A crate, and the crates of the workspace it may depend on. `tercel-formats` is the vocabulary
/// of tensor types and files, so all that read a model may name it.
const MAP: &[(&str, &[&str])] = &[
    (
        "tercel-cli",
        &[
            "tercel",
            "tercel-bundle",
            "tercel-eval",
            "tercel-quantize",
            "tercel-server",
        ],
    ),
    ("tercel-ffi", &["tercel", "tercel-bundle"]),
    ("tercel-server", &["tercel"]),
    ("tercel-eval", &["tercel", "tercel-formats"]),
    ("tercel", &["tercel-formats", "tercel-nn", "tercel-text"]),
    (
        "tercel-quantize",
        &["tercel-formats", "tercel-nn", "tercel-text"],
    ),
    (
        "tercel-nn",
        &["tercel-formats", "tercel-gpu", "tercel-kernels"],
    ),
    ("tercel-gpu", &["tercel-kernels"]),
    ("tercel-kernels", &["tercel-formats"]),
    ("tercel-text", &["tercel-formats"]),
    ("tercel-bundle", &["tercel-formats"]),
    ("tercel-formats", &[]),
    ("xtask", &[]),
];

/// What tests of any crate may use beyond the map: it can write the files they need.
const FOR_TESTS: &str = "tercel-formats";

/// One crate of the workspace that depends on another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Only tests, examples and benchmarks need it.
    pub(crate) dev: bool,
}

/// Checks the workspace against the map.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let names: BTreeSet<&str> = workspace
        .packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let violations = violations(&names, &edges(workspace));
    if violations.is_empty() {
        return Ok(());
    }
    bail!("{}", violations.join("; "))
}

/// What the map does not allow, in words.
pub(crate) fn violations(crates: &BTreeSet<&str>, edges: &[Edge]) -> Vec<String> {
    let unknown = crates
        .iter()
        .filter(|name| allowed(name).is_none())
        .map(|name| format!("`{name}` is not on the map in xtask/src/direction.rs"));
    let wrong = edges
        .iter()
        .filter(|edge| !is_allowed(edge))
        .map(|edge| format!("`{}` may not depend on `{}`", edge.from, edge.to));
    unknown.chain(wrong).collect()
}

fn is_allowed(edge: &Edge) -> bool {
    let on_map = allowed(&edge.from).is_some_and(|known| known.contains(&edge.to.as_str()));
    on_map || (edge.dev && edge.to == FOR_TESTS)
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    let row = MAP.iter().find(|(known, _)| *known == name);
    row.map(|(_, allowed)| *allowed)
}

fn edges(workspace: &Workspace) -> Vec<Edge> {
    let packages = workspace.packages().iter();
    packages
        .flat_map(|package| {
            // A dependency with a path is one of ours, whatever it is renamed to.
            let ours = package.dependencies.iter().filter(|dep| dep.path.is_some());
            ours.map(|dependency| Edge {
                from: package.name.to_string(),
                to: dependency.name.clone(),
                dev: dependency.kind == DependencyKind::Development,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, dev: bool) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            dev,
        }
    }

    #[test]
    fn edges_of_the_map_pass_and_others_are_named() {
        for (from, to, dev, passes) in [
            ("tercel-cli", "tercel", false, true),
            ("tercel-nn", "tercel-kernels", false, true),
            ("tercel", "tercel-text", true, true),
            ("tercel-server", "tercel-formats", true, true),
            ("tercel-eval", "tercel-formats", false, true),
            ("tercel-formats", "tercel-kernels", false, false),
            ("tercel-kernels", "tercel-nn", true, false),
            ("tercel-text", "tercel-nn", false, false),
            ("tercel-cli", "tercel-kernels", false, false),
            ("tercel-server", "tercel-eval", false, false),
            ("xtask", "tercel", false, false),
            ("newcomer", "tercel", false, false),
        ] {
            let found = violations(&BTreeSet::new(), &[edge(from, to, dev)]);
            let want = format!("`{from}` may not depend on `{to}`");
            let want = if passes { vec![] } else { vec![want] };
            assert_eq!(found, want, "{from} -> {to}");
        }
    }

    #[test]
    fn a_crate_that_is_not_on_the_map_is_named() {
        let found = violations(&BTreeSet::from(["tercel", "newcomer"]), &[]);
        assert_eq!(
            found,
            ["`newcomer` is not on the map in xtask/src/direction.rs"]
        );
    }

    #[test]
    fn the_map_has_no_circle() {
        // Every crate comes before all that it may depend on.
        for (i, (name, allowed)) in MAP.iter().enumerate() {
            for to in *allowed {
                let at = MAP.iter().position(|(known, _)| known == to);
                assert!(at.is_some_and(|at| at > i), "{name} -> {to}");
            }
        }
    }

    #[test]
    fn the_workspace_follows_the_map() {
        let workspace = Workspace::load().unwrap();
        let edges = edges(&workspace);
        assert!(edges.contains(&edge("tercel", "tercel-nn", false)));
        check(&workspace).unwrap();
    }
}
