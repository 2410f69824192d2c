//! `tercel config set` and `unset`.

use serde_json::Value;
use tercel::source::{Catalog, ModelRef};

use crate::config::{self, Change, Edit, KEYS, Key};
use crate::context::Context;
use crate::failure::Failure;

/// Set a value, for all models or for one
///
/// `tercel config show` lists what there is. Comments in the file stay.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel config set max_context 2048
  tercel config set --model smollm2:135m threads 2
  tercel config set stop '[\"END\", \"STOP\"]'")]
pub(super) struct SetArgs {
    /// The setting
    #[arg(value_parser = known)]
    key: &'static Key,
    /// Its value
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// The model it is for [default: all]
    #[arg(short, long)]
    model: Option<String>,
}

/// Take a value back
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel config unset max_context
  tercel config unset --model smollm2:135m threads")]
pub(super) struct UnsetArgs {
    /// The setting
    #[arg(value_parser = known)]
    key: &'static Key,
    /// The model that it was for [default: all]
    #[arg(short, long)]
    model: Option<String>,
}

fn known(name: &str) -> Result<&'static Key, String> {
    config::key(name).ok_or_else(|| {
        let names = KEYS.each_ref().map(|key| key.name).join(", ");
        format!("there are {names}")
    })
}

pub(super) fn set(args: &SetArgs, context: &Context) -> Result<(), Failure> {
    let value = config::value(args.key, &args.value)
        .map_err(|problem| Failure::new("invalid_parameter", problem))?;
    // A model that is not known yet would be a slip of the pen, kept for ever.
    if let Some(model) = &args.model {
        ModelRef::parse(model, Catalog::builtin())?;
    }
    change(args.model.as_deref(), args.key, Some(&value), context)
}

pub(super) fn unset(args: &UnsetArgs, context: &Context) -> Result<(), Failure> {
    change(args.model.as_deref(), args.key, None, context)
}

fn change(
    model: Option<&str>,
    key: &'static Key,
    value: Option<&Value>,
    context: &Context,
) -> Result<(), Failure> {
    let mut edit = Edit::open()?;
    let identity = model.map(|model| config::identity(model, Catalog::builtin()));
    let change = edit.set(identity.as_deref(), key, value);
    if change.old != change.new {
        edit.write()?;
    }
    let whose = identity.unwrap_or_else(|| "all models".to_owned());
    let file = edit.file().display();
    context.out.line(&format!(
        "{change}, for {whose}, in {file}",
        change = told(&change)
    ))
}

/// Such as `threads 2 -> 4`.
pub(crate) fn told(change: &Change) -> String {
    let of = |value: &Option<Value>| value.as_ref().map_or("unset".to_owned(), config::shown);
    format!("{} {} -> {}", change.key, of(&change.old), of(&change.new))
}
