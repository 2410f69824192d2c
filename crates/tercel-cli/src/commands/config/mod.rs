//! `tercel config`: the user's own settings, and configurations of KV caches.

mod change;
mod check;
mod show;

pub(crate) use change::told;
use clap::Subcommand;

use crate::config::{ConfigError, config_file};
use crate::context::Context;
use crate::failure::Failure;

/// Show and change your settings
///
/// They stand in config.toml, for all models and for each. A flag comes before what is set for the
/// model, that before what is set for all models, and that before what the model recommends.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Show(show::Args),
    Set(change::SetArgs),
    Unset(change::UnsetArgs),
    Path(PathArgs),
    Check(check::Args),
}

/// Print where your settings are kept
///
/// The file need not be there. It is config.toml in TERCEL_HOME, else in the user's directory for
/// configurations.
#[derive(clap::Args)]
struct PathArgs;

impl Args {
    /// Whether standard output carries JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.what {
            What::Show(args) => args.json,
            What::Check(args) => args.json,
            What::Set(_) | What::Unset(_) | What::Path(_) => false,
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    match &args.what {
        What::Show(args) => show::run(args, context),
        What::Set(args) => change::set(args, context),
        What::Unset(args) => change::unset(args, context),
        What::Path(PathArgs) => {
            let file = config_file().ok_or(ConfigError::NoPlace)?;
            context.out.line(&file.display().to_string())
        }
        What::Check(args) => check::run(args, context),
    }
}
