//! `tercel pull`: fetch a model for later.

use tercel::source::{Checked, LocalFile, LocalModel, ModelKind, ModelRef, Store};

use crate::context::Context;
use crate::failure::Failure;
use crate::terminal::one_line;
use crate::{format, load};

/// Fetch a model into the store
///
/// Does nothing when the model is there. A fetch that was interrupted continues where it stopped.
/// A model is a GGUF file, a split one with all its parts, or a repository's config.json,
/// tokenizer and safetensors files. Each file is checked against the size and the hash that the
/// catalog or the Hub give; the model is there when all its files are.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel pull smollm2:135m
  tercel pull hf:org/repo:Q8_0
  tercel pull hf:org/repo@v1")]
pub(crate) struct Args {
    /// A catalog name, or hf:org/repo[@revision][:file or quantization]
    model: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let store = Store::open_default()?;
    let model = store.parse(&args.model)?;
    if let ModelRef::Catalog(name) = &model
        && let Some(entry) = store.catalog().entry(name)
        && entry.is_unverified()
    {
        let name = &entry.name;
        context.note(&format!(
            "{name} is unverified: nobody of the project has fetched it from its sources yet"
        ));
    }
    let found = load::fetch(&store, &model, false, context)?;
    report(&found, context)
}

fn report(found: &LocalModel, context: &Context) -> Result<(), Failure> {
    let state = if found.cached {
        "was there already"
    } else {
        "is ready"
    };
    let LocalModel {
        name,
        path,
        kind,
        files,
        size_bytes,
        source,
        licence,
        sha256,
        ..
    } = found;
    let of_files = match files.len() {
        1 => String::new(),
        count => format!(" in {count} files"),
    };
    let size = format!(
        "{} ({size_bytes} bytes){of_files}",
        format::bytes(*size_bytes)
    );
    context.out.line(&format!("{} {state}", one_line(name)))?;
    context.out.entry("path", &path.display().to_string())?;
    context.out.entry("size", &size)?;
    context.out.entry("source", source)?;
    context
        .out
        .entry("licence", licence.as_deref().unwrap_or("not known"))?;
    if *kind == ModelKind::SingleGguf {
        let sha256 = sha256.as_deref().unwrap_or("not known");
        context.out.entry("sha256", sha256)
    } else {
        context.out.entry("kind", kind.name())?;
        context.out.entry("checked", &checks(files))
    }
}

/// How many files were compared with what when they were fetched.
fn checks(files: &[LocalFile]) -> String {
    let mut parts = Vec::new();
    for (checked, words) in [
        (Checked::Sha256, "by SHA-256"),
        (Checked::GitSha1, "by git hash"),
        (Checked::Size, "by size alone"),
    ] {
        let count = files.iter().filter(|file| file.checked == checked).count();
        if count > 0 {
            parts.push(format!("{count} {words}"));
        }
    }
    match parts.is_empty() {
        true => "not known".to_owned(),
        false => parts.join(", "),
    }
}
