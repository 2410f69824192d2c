//! `tercel pull`: fetch a model for later.

use tercel::source::{LocalModel, Store};

use crate::context::Context;
use crate::failure::Failure;
use crate::terminal::one_line;
use crate::{format, load};

/// Fetch a model into the store
///
/// Does nothing when the model is there. A fetch that was interrupted continues where it stopped.
/// The file is checked against its size and SHA-256 before it counts as there.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel pull smollm2:135m
  tercel pull hf:org/repo:Q8_0")]
pub(crate) struct Args {
    /// A catalog name, or hf:org/repo[@revision][:file or quantization]
    model: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let store = Store::open_default()?;
    let model = store.parse(&args.model)?;
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
        size_bytes,
        source,
        licence,
        sha256,
        ..
    } = found;
    let size = format!("{} ({size_bytes} bytes)", format::bytes(*size_bytes));
    context.out.line(&format!("{} {state}", one_line(name)))?;
    context.out.entry("path", &path.display().to_string())?;
    context.out.entry("size", &size)?;
    context.out.entry("source", source)?;
    context
        .out
        .entry("licence", licence.as_deref().unwrap_or("not known"))?;
    context
        .out
        .entry("sha256", sha256.as_deref().unwrap_or("not known"))
}
