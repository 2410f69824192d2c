//! `tercel rm`: remove models from the store.

use tercel::source::{DamagedModel, SourceError, Store};

use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::terminal::one_line;

/// Remove models from the store
///
/// Files outside the store are never touched. What is left of an unfinished fetch goes too.
#[derive(clap::Args)]
#[command(after_help = "Example:
  tercel rm smollm2:135m gemma3:270m")]
pub(crate) struct Args {
    /// Names as `tercel list` shows them
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
}

/// Removes what can be removed; the first failure is the command's.
pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let store = Store::open_default()?;
    let mut failed = None;
    for name in &args.models {
        let removed = remove(&store, name);
        match removed {
            Ok(freed) => {
                let freed = format::bytes(freed);
                context
                    .out
                    .line(&format!("removed {} ({freed})", one_line(name)))?;
            }
            Err(error) => {
                if let Some(earlier) = failed.replace(Failure::from(error)) {
                    context.out.failure(&earlier);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes a model, or what is left of one that no reference names any more.
fn remove(store: &Store, name: &str) -> Result<u64, SourceError> {
    let removed = store.parse(name).and_then(|model| store.remove(&model));
    let is_damaged = |damaged: Vec<DamagedModel>| damaged.iter().any(|entry| entry.name == name);
    match removed {
        Err(_) if store.damaged().is_ok_and(is_damaged) => store.remove_damaged(name),
        other => other,
    }
}
