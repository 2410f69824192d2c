//! What a search found, put into the user's settings.

use serde::Serialize;
use serde_json::Value;
use tercel::source::Catalog;

use super::{KvName, Setting};
use crate::commands::config::told;
use crate::config::{self, Change, Edit, key};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Line;

/// What was written, as `--json` prints it.
#[derive(Serialize)]
pub(crate) struct Kept {
    file: String,
    /// The model as the settings name it.
    model: String,
    /// Whether this is only what would be written.
    dry_run: bool,
    changes: Vec<Change>,
}

/// Writes the best setting for a model, and tells what changes. `is_all` says that its cores are all
/// that the process may use, which needs no setting.
pub(super) fn keep(
    model: &str,
    best: &Setting,
    is_all: bool,
    dry_run: bool,
    context: &Context,
) -> Result<(), Failure> {
    let mut edit = Edit::open()?;
    let identity = config::identity(model, Catalog::builtin());
    let cores = best
        .cores
        .as_ref()
        .map(|cores| Value::from(cores.to_string()));
    // Where a set is named for all models, that of this one must be named too.
    let cores = cores.filter(|_| !is_all || edit.has("cores"));
    let values = [
        ("threads", Some(Value::from(best.threads))),
        ("cores", cores),
        ("kv_type", Some(Value::from(best.kv.name()))),
    ];
    let values = values.into_iter();
    let values = values.filter_map(|(name, value)| Some((key(name)?, value)));
    let changes: Vec<Change> = values
        .map(|(key, value)| edit.set(Some(&identity), key, value.as_ref()))
        .collect();
    if !dry_run {
        edit.write()?;
    }
    let kept = Kept {
        file: edit.file().display().to_string(),
        model: identity,
        dry_run,
        changes,
    };
    if best.kv != KvName::F16 {
        context.note(&format!(
            "{} keeps fewer bits of keys and values than f16, so replies may differ; `tercel config \
             unset --model {} kv_type` takes that back",
            best.kv.name(),
            kept.model
        ));
    }
    tell(&kept, context)
}

fn tell(kept: &Kept, context: &Context) -> Result<(), Failure> {
    let out = context.out;
    if out.is_json() {
        return out.json(&Line::Kept(kept));
    }
    let done = if kept.dry_run { "would write" } else { "wrote" };
    out.line(&format!("{done} {}, for {}:", kept.file, kept.model))?;
    for change in &kept.changes {
        // What was not there and still is not is no news.
        if change.old.is_some() || change.new.is_some() {
            out.line(&format!("  {}", told(change)))?;
        }
    }
    Ok(())
}
