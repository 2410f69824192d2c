//! `tercel list`: what is here, and what could be.

use serde::Serialize;
use tercel::source::{DamagedModel, LocalModel, ModelKind, Store};

use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::terminal::one_line;

/// List the models of the store, and those of the catalog that can be pulled
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show where each file is
    #[arg(long)]
    paths: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let store = Store::open_default()?;
    let models = store.list()?;
    let damaged = store.damaged()?;
    let pullable: Vec<Pullable> = store
        .catalog()
        .entries()
        .iter()
        .filter(|entry| !models.iter().any(|model| model.name == entry.name))
        .map(|entry| Pullable {
            name: &entry.name,
            title: &entry.title,
            size_bytes: entry.size_bytes,
            licence: &entry.licence,
            unverified: entry.is_unverified(),
        })
        .collect();
    if args.json {
        return context.out.json(&List {
            store: store.root().display().to_string(),
            models: models.iter().map(Stored::from).collect(),
            damaged: damaged.iter().map(Damaged::from).collect(),
            pullable,
        });
    }

    if models.is_empty() {
        context.out.line(&format!(
            "no models in {}",
            one_line(&store.root().display().to_string())
        ))?;
    } else {
        stored(&models, args.paths, context)?;
    }
    for entry in &damaged {
        context.out.line(&format!(
            "damaged: {}: {}; {}",
            one_line(&entry.name),
            one_line(&entry.reason),
            way_out(entry)
        ))?;
    }
    if pullable.is_empty() {
        return Ok(());
    }
    context.out.line("\nto be had with `tercel pull NAME`:")?;
    let rows: Vec<_> = pullable
        .iter()
        .map(|of| {
            [
                of.name.to_owned(),
                of.size_bytes.map_or("-".to_owned(), format::bytes),
                of.licence.to_owned(),
                if of.unverified {
                    format!("{} (unverified)", of.title)
                } else {
                    of.title.to_owned()
                },
            ]
        })
        .collect();
    print(
        context,
        &format::table(["NAME", "SIZE", "LICENCE", "MODEL"], &[1], &rows),
    )?;
    if pullable.iter().any(|of| of.unverified) {
        context.out.line(UNVERIFIED)?;
    }
    Ok(())
}

const UNVERIFIED: &str = "unverified: nobody of the project has fetched this one; the hashes that \
                          its source gives are checked";

/// What to do about a damaged model, as a part of a sentence.
fn way_out(entry: &DamagedModel) -> String {
    let name = one_line(&entry.name);
    if entry.fetchable {
        format!("`tercel pull {name}` repairs it, `tercel rm {name}` removes it")
    } else {
        format!("`tercel rm {name}` removes it")
    }
}

fn stored(models: &[LocalModel], paths: bool, context: &Context) -> Result<(), Failure> {
    let last = if paths { "PATH" } else { "SOURCE" };
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let last = if paths {
                model.path.display().to_string()
            } else {
                model.source.clone()
            };
            [
                one_line(&model.name).into_owned(),
                format::bytes(model.size_bytes),
                one_line(&last).into_owned(),
            ]
        })
        .collect();
    print(context, &format::table(["NAME", "SIZE", last], &[1], &rows))
}

fn print(context: &Context, lines: &[String]) -> Result<(), Failure> {
    let style = context.out.style();
    for (at, line) in lines.iter().enumerate() {
        if at == 0 {
            context.out.line(&style.dim(line))?;
        } else {
            context.out.line(line)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct List<'a> {
    store: String,
    models: Vec<Stored<'a>>,
    damaged: Vec<Damaged<'a>>,
    pullable: Vec<Pullable<'a>>,
}

#[derive(Serialize)]
struct Stored<'a> {
    name: &'a str,
    path: String,
    kind: ModelKind,
    files: usize,
    size_bytes: u64,
    source: &'a str,
    licence: Option<&'a str>,
    sha256: Option<&'a str>,
}

impl<'a> From<&'a LocalModel> for Stored<'a> {
    fn from(model: &'a LocalModel) -> Self {
        Self {
            name: &model.name,
            path: model.path.display().to_string(),
            kind: model.kind,
            files: model.files.len(),
            size_bytes: model.size_bytes,
            source: &model.source,
            licence: model.licence.as_deref(),
            sha256: model.sha256.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Damaged<'a> {
    name: &'a str,
    path: String,
    reason: &'a str,
    fetchable: bool,
}

impl<'a> From<&'a DamagedModel> for Damaged<'a> {
    fn from(entry: &'a DamagedModel) -> Self {
        Self {
            name: &entry.name,
            path: entry.directory.display().to_string(),
            reason: &entry.reason,
            fetchable: entry.fetchable,
        }
    }
}

#[derive(Serialize)]
struct Pullable<'a> {
    name: &'a str,
    title: &'a str,
    size_bytes: Option<u64>,
    licence: &'a str,
    unverified: bool,
}
