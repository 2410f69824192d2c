//! What cargo knows about the workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package, TargetKind};

/// The workspace this program belongs to.
pub(crate) struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    /// Asks cargo, without a network.
    pub(crate) fn load() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.context("xtask lies in the workspace")?;
        Self::at(&root.join("Cargo.toml"))
    }

    /// The workspace of a manifest.
    pub(crate) fn at(manifest: &Path) -> Result<Self> {
        let mut command = MetadataCommand::new();
        let metadata = command.manifest_path(manifest).no_deps().exec();
        let metadata = metadata.with_context(|| format!("cannot read {}", manifest.display()))?;
        Ok(Self { metadata })
    }

    /// The directory of the root manifest.
    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// The release build of the `tercel` command, whether it exists or not.
    pub(crate) fn tercel(&self) -> PathBuf {
        let name = format!("tercel{}", std::env::consts::EXE_SUFFIX);
        self.target().join("release").join(name)
    }

    /// The members.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.metadata.packages
    }

    /// The names of the members that are libraries.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = &str> {
        let is_library = |package: &&Package| {
            let mut targets = package.targets.iter();
            targets.any(|target| target.kind.contains(&TargetKind::Lib))
        };
        self.packages()
            .iter()
            .filter(is_library)
            .map(|package| package.name.as_str())
    }
}
