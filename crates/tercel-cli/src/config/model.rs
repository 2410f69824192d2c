//! Which names mean the same model.

use std::fs;
use std::path::Path;

use tercel::source::{Catalog, ModelRef};

/// What a model is called wherever its settings are looked up: the whole path of a file, `hf:` and
/// a repository, or the full name in the catalog. A name that means nothing stays as it is.
pub(crate) fn identity(name: &str, catalog: &Catalog) -> String {
    match ModelRef::parse(name, catalog) {
        Ok(ModelRef::Path(path)) => whole(&path),
        Ok(model) => model.to_string(),
        Err(_) => name.to_owned(),
    }
}

/// The identity of a model that a file names, which must mean the same wherever a command is run;
/// or why it is none. A path need not exist: a disk may be elsewhere today.
pub(super) fn identity_in_file(name: &str, catalog: &Catalog) -> Result<String, &'static str> {
    let path = Path::new(name);
    if path.is_absolute() {
        return Ok(whole(path));
    }
    if let Some(entry) = catalog.resolve(name) {
        return Ok(entry.name.clone());
    }
    // A plain name could be that of a file here and today, so only what it says counts.
    let hub = match name.strip_prefix("hf:") {
        Some(_) => name.to_owned(),
        None if name.starts_with(['.', '~']) || name.ends_with(".gguf") => String::new(),
        None => format!("hf:{name}"),
    };
    ModelRef::parse(&hub, catalog)
        .map(|model| model.to_string())
        .map_err(|_| "is neither a name of the catalog, nor hf:org/repo, nor a whole path")
}

fn whole(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_model_have_one_identity() {
        let catalog = Catalog::builtin();
        let directory = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(directory.path()).expect("it is there");
        let path = |name: &str| root.join(name).display().to_string();
        fs::write(root.join("a.gguf"), "").expect("written");
        for (name, expected) in [
            ("smollm2:135m", Ok("smollm2:135m".to_owned())),
            ("smollm2", Ok("smollm2:135m".to_owned())),
            ("org/repo", Ok("hf:org/repo".to_owned())),
            ("hf:org/repo:Q4_K_M", Ok("hf:org/repo:Q4_K_M".to_owned())),
            (&path("a.gguf"), Ok(path("a.gguf"))),
            (&path("gone.gguf"), Ok(path("gone.gguf"))),
            ("./a.gguf", Err(())),
            ("models/a.gguf", Err(())),
            ("~/a.gguf", Err(())),
            ("smolm2:135m", Err(())),
            ("src", Err(())),
            ("", Err(())),
        ] {
            let found = identity_in_file(name, catalog).map_err(|_| ());
            assert_eq!(found, expected, "{name}");
            if let Ok(found) = found {
                assert_eq!(identity(&found, catalog), found, "{name}");
            }
        }
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(
            identity("src", catalog),
            here.join("src").display().to_string()
        );
    }
}
