//! `tercel config show`: each setting, its value, and where that comes from.

use serde::Serialize;
use serde_json::{Map, Value};
use tercel::cores;
use tercel::source::{Catalog, Store};
use tercel::{ModelFiles, Sampling};

use crate::chat::effective_sampling;
use crate::config::{self, KEYS, Key, Settings, UserConfig};
use crate::context::Context;
use crate::failure::Failure;
use crate::format;

/// Show your settings, and where each comes from
///
/// With a MODEL, what holds for it: what is set for it, then what is set for all, then what it
/// recommends itself, then Tercel's own. Flags come before all of them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel config show
  tercel config show smollm2:135m --json")]
pub(super) struct Args {
    /// A catalog name, a GGUF file, or hf:org/repo [default: what holds for all]
    model: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A setting as `--json` prints it.
#[derive(Serialize)]
struct Shown {
    key: &'static str,
    /// `null` where there is none, as of a limit.
    value: Value,
    from: Origin,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    Config,
    Model,
    Default,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let config = UserConfig::read()?;
    let of_model = match &args.model {
        Some(model) => of_model(model, context)?,
        None => Sampling::default(),
    };
    let identity = args.model.as_ref();
    let identity = identity.map(|model| config::identity(model, Catalog::builtin()));
    let settings = config.settings(identity.as_deref())?;
    let effective = effective_sampling(&settings.sampling, &of_model)
        .map_err(|problem| Failure::new("internal", problem))?;
    let shown = KEYS
        .iter()
        .map(|key| shown(key, &settings, &of_model, &effective));
    let shown: Vec<Shown> = shown.collect();
    let file = config.file.as_ref().map(|file| file.display().to_string());
    if args.json {
        let models: Vec<&str> = config.models.iter().map(|own| own.name.as_str()).collect();
        return context.out.json(&serde_json::json!({
            "file": file,
            "model": identity,
            "settings": shown,
            "models": models,
        }));
    }
    if let Some(file) = &file {
        context.out.line(&format!("file: {file}"))?;
    }
    context.out.line("")?;
    let rows: Vec<_> = shown.iter().map(row).collect();
    for line in format::table(["SETTING", "VALUE", "FROM"], &[], &rows) {
        context.out.line(&line)?;
    }
    if identity.is_none() && !config.models.is_empty() {
        context.out.line("")?;
        for own in &config.models {
            let values = own.values.iter();
            let values =
                values.map(|(name, entry)| format!("{name} {}", config::shown(&entry.value)));
            let values: Vec<String> = values.collect();
            context
                .out
                .line(&format!("{}: {}", own.name, values.join(", ")))?;
        }
    }
    Ok(())
}

/// What a model recommends, where it is on this machine.
fn of_model(model: &str, context: &Context) -> Result<Sampling, Failure> {
    let store = Store::open_default()?;
    let Some(local) = store.find(&store.parse(model)?)? else {
        context.note("the model is not on this machine; what it recommends is not known");
        return Ok(Sampling::default());
    };
    Ok(ModelFiles::of(&local)?.inspect(None)?.sampling)
}

fn shown(
    key: &'static Key,
    settings: &Settings,
    of_model: &Sampling,
    effective: &Map<String, Value>,
) -> Shown {
    if let Some(entry) = settings.entries.get(key.name) {
        return Shown {
            key: key.name,
            value: entry.value.clone(),
            from: Origin::Config,
            line: Some(entry.line),
        };
    }
    let from = match config::is_set(of_model, key.name) {
        true => Origin::Model,
        false => Origin::Default,
    };
    Shown {
        key: key.name,
        value: effective
            .get(key.name)
            .cloned()
            .unwrap_or_else(|| default_of_engine(key.name)),
        from,
        line: None,
    }
}

/// What holds for an engine that nobody says anything about.
fn default_of_engine(name: &str) -> Value {
    match name {
        "threads" => "physical cores".into(),
        "cores" => cores::of_process().map_or(Value::Null, |cores| cores.to_string().into()),
        "max_context" => "4096, or what the model was trained for".into(),
        "kv_type" => "f16".into(),
        _ => Value::Null,
    }
}

fn row(shown: &Shown) -> [String; 3] {
    let value = match &shown.value {
        Value::Null => "no bound".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        value => config::shown(value),
    };
    let from = match (shown.from, shown.line) {
        (_, Some(line)) => format!("line {line}"),
        (Origin::Model, _) => "the model".to_owned(),
        _ => "default".to_owned(),
    };
    [shown.key.to_owned(), value, from]
}
