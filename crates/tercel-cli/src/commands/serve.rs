//! `tercel serve`: models for other programs, over HTTP.

use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tercel::source::Store;
use tercel::{Engine, Pooling};
use tercel_server::{Config, Keys, LogTarget, Notice, Rate, ServedModel, Server, StopHandle};

use crate::args::EngineArgs;
use crate::config::Settings;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::Output;

/// Serve models to other programs over HTTP
///
/// Speaks the protocols of OpenAI (/v1/chat/completions, /v1/completions, /v1/responses,
/// /v1/embeddings, /v1/models), Anthropic (/v1/messages) and Ollama (/api/...), and has a page to
/// chat on at /. /openapi.json describes all of it; /healthz, /readyz and /metrics are for those who
/// look after it.
///
/// A MODEL may be given a name of its own: NAME=MODEL. Clients that name no model get the first one.
/// Models are fetched before the server starts and loaded meanwhile; with --lazy, when they are first
/// asked for.
///
/// The address is printed on standard output once the server listens. Ctrl-C or SIGTERM ends it: new
/// requests are refused, those that run may finish within the grace time.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel serve                                    the default model on http://127.0.0.1:8080
  tercel serve small=smollm2:135m text=gemma3:270m --port 9000
  K_USER_1=$(openssl rand -hex 32) tercel serve --keys-from-env --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"smollm2:135m\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'")]
pub(crate) struct Args {
    /// Models, each as MODEL or NAME=MODEL [default: smollm2:135m]
    #[arg(value_name = "[NAME=]MODEL")]
    models: Vec<String>,
    /// The address to listen on
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        help_heading = "Server"
    )]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8080,
        help_heading = "Server"
    )]
    port: u16,
    /// Load models when they are first asked for
    #[arg(long, help_heading = "Server")]
    lazy: bool,
    /// Unload a model after so many seconds without a request [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Server")]
    idle_ttl: Option<Duration>,
    /// The longest a request may take, in seconds [default: no bound]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Server")]
    deadline: Option<Duration>,
    /// How long requests that run may go on once the server is to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = "Server")]
    grace: Duration,
    /// Drop a client that does not read what it is sent for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, help_heading = "Server")]
    write_timeout: Duration,
    /// Let clients fetch models, by Ollama's /api/pull
    #[arg(long, help_heading = "Server")]
    allow_pull: bool,
    /// How the states of a text's tokens become one embedding: mean or last
    #[arg(long, value_name = "KIND", default_value = "mean", value_parser = ["mean", "last"], help_heading = "Server")]
    pooling: String,

    /// Keys in a file that nobody else may read: a line each of ID, user or admin, and SECRET
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    keys_file: Option<PathBuf>,
    /// Keys in the environment: K_USER_1=SECRET, K_ADMIN_1=SECRET and so on
    #[arg(long, help_heading = "Access")]
    keys_from_env: bool,
    /// Listen beyond this machine without any key
    #[arg(long, help_heading = "Access")]
    insecure: bool,
    /// A name under which the server is reached, beside localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Access")]
    allow_host: Vec<String>,
    /// An origin whose pages may ask, such as https://app.example; may be repeated
    #[arg(long, value_name = "ORIGIN", help_heading = "Access")]
    allow_origin: Vec<String>,
    /// Requests a second of one client, and in one burst, such as 1/3 [default: no bound]
    #[arg(long, value_name = "RATE/BURST", value_parser = rate, help_heading = "Access")]
    rate_client: Option<Rate>,
    /// The same of all clients together [default: no bound]
    #[arg(long, value_name = "RATE/BURST", value_parser = rate, help_heading = "Access")]
    rate_global: Option<Rate>,
    /// What is looked for: `input` refuses prompts that try to take over, `output` takes secrets out
    /// of replies, `personal` addresses and numbers too
    #[arg(long, value_name = "WHAT,..", value_delimiter = ',', value_parser = ["input", "output", "personal"], help_heading = "Access")]
    guard: Vec<String>,

    /// Where events are logged as JSON lines, without texts; - is standard error [default: standard
    /// error, unless that is a terminal]
    #[arg(long, value_name = "FILE", help_heading = "Log")]
    log_file: Option<PathBuf>,
    /// Log the first 80 characters of prompts and replies, scrubbed
    #[arg(long, help_heading = "Log")]
    log_previews: bool,

    #[command(flatten)]
    engine: EngineArgs,
    /// Tokens that prompt and reply may have together, at least 2 [default: 4096, or less where
    /// the model was trained for less]
    #[arg(long, value_name = "N", help_heading = "Engine")]
    max_context: Option<usize>,
    /// Requests that are computed at once, at least 1 [default: 8]
    #[arg(long, value_name = "N", help_heading = "Engine")]
    max_sequences: Option<usize>,
    /// Requests that may wait for their turn; more are told to come again [default: 64]
    #[arg(long, value_name = "N", help_heading = "Engine")]
    max_waiting: Option<usize>,
}

/// The default model of all commands.
const DEFAULT_MODEL: &str = "smollm2:135m";
/// How often Ctrl-C is looked for.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut config = Config::default();
    config.models = args.models(context)?;
    config.keys = args.keys(context)?;
    config.insecure = args.insecure;
    config.allowed_hosts.clone_from(&args.allow_host);
    config.allowed_origins.clone_from(&args.allow_origin);
    config.rates.client = args.rate_client;
    config.rates.global = args.rate_global;
    config.idle_ttl = args.idle_ttl;
    config.limits.deadline = args.deadline;
    config.limits.grace = args.grace;
    config.limits.write_timeout = args.write_timeout;
    config.allow_pull = args.allow_pull;
    let looks_for = |what: &str| args.guard.iter().any(|it| it == what);
    config.guard.input = looks_for("input");
    config.guard.personal_data = looks_for("personal");
    config.guard.output = looks_for("output") || config.guard.personal_data;
    config.log.target = args.log_target();
    config.log.previews = args.log_previews;
    config.stop_on_sigterm = true;
    args.engine.keep_to_cores()?;

    let is_log = matches!(config.log.target, Some(LogTarget::Stderr));
    let mut server = Server::bind(config, SocketAddr::new(args.host, args.port))?;
    if !is_log {
        let (out, is_quiet) = (context.out, context.quiet);
        server = server.on_notice(move |notice| tell(notice, out, is_quiet));
    }
    let address = server.address();
    context.out.line(&format!("http://{address}"))?;
    context.note(&format!(
        "the page is at http://{address}/, the protocols are described at \
         http://{address}/openapi.json; Ctrl-C ends the server"
    ));
    let of_signal = server.stop_handle();
    let interrupt = context.interrupt.clone();
    thread::spawn(move || stop_when_hit(&interrupt, &of_signal));
    server.run()?;
    Ok(())
}

/// Tells at a terminal what is in the log otherwise.
fn tell(notice: Notice<'_>, out: Output, is_quiet: bool) {
    let text = match notice {
        Notice::ModelFailed { model, message } => {
            let message = format!("`{model}` cannot be loaded: {message}");
            out.failure(&Failure::new("model_failed", message));
            return;
        }
        Notice::ModelReady { model } => format!("`{model}` is ready"),
        Notice::Draining { grace } => format!(
            "ending: requests that run have {} s; Ctrl-C again ends at once",
            grace.as_secs_f64()
        ),
        _ => return,
    };
    if !is_quiet {
        out.note(&text);
    }
}

/// Ctrl-C drains the server; a second one ends the process, which the handler sees to.
fn stop_when_hit(interrupt: &Interrupt, server: &StopHandle) {
    while !interrupt.is_hit() {
        thread::sleep(LOOK);
    }
    server.stop();
}

impl Args {
    /// The models by name, on this machine unless they are to be loaded lazily.
    fn models(&self, context: &Context) -> Result<Vec<ServedModel>, Failure> {
        let default = [DEFAULT_MODEL.to_owned()];
        let given = if self.models.is_empty() {
            &default[..]
        } else {
            &self.models
        };
        let store = Store::open_default()?;
        let mut models: Vec<ServedModel> = Vec::new();
        for text in given {
            let (name, source) = named(text);
            if models.iter().any(|model| model.name == name) {
                return Err(Failure::Usage(format!(
                    "two models are called `{name}`: give them names, as in NAME=MODEL"
                )));
            }
            let parsed = store.parse(&source)?;
            if !self.lazy {
                load::fetch(&store, &parsed, self.engine.is_offline(), context)?;
            }
            models.push(self.model(name, source, context)?);
        }
        Ok(models)
    }

    fn model(
        &self,
        name: String,
        source: String,
        context: &Context,
    ) -> Result<ServedModel, Failure> {
        let mut settings = Settings::of(&source)?;
        let mut engine = self.engine.clone();
        let mut max_context = self.max_context;
        engine.fill(&mut settings);
        settings.fill("max_context", &mut max_context, |own| own.max_context);
        settings.tell(false, context);
        let sampling = settings.sampling.clone();
        let (sequences, waiting) = (self.max_sequences.unwrap_or(8), self.max_waiting);
        let of_builder = source.clone();
        let mut model = ServedModel::new(name, source, move || {
            let mut builder = engine
                .apply(Engine::builder(&of_builder))
                .sampling(sampling.clone())
                .max_sequences(sequences);
            if let Some(tokens) = max_context {
                builder = builder.max_context(tokens);
            }
            if let Some(requests) = waiting {
                builder = builder.queue_capacity(requests);
            }
            builder
        });
        model.preload = !self.lazy;
        if self.pooling == "last" {
            model.pooling = Pooling::Last;
        }
        Ok(model)
    }

    fn keys(&self, context: &Context) -> Result<Keys, Failure> {
        let mut keys = Keys::default();
        if let Some(file) = &self.keys_file {
            keys.merge(Keys::from_file(file)?)?;
        }
        if self.keys_from_env {
            let found = Keys::from_env(std::env::vars_os())?;
            if found.is_empty() {
                return Err(
                    Failure::new("no_keys", "there are no keys in the environment")
                        .with_hint("set K_USER_1 or K_ADMIN_1 to a long secret"),
                );
            }
            keys.merge(found)?;
        } else if Keys::from_env(std::env::vars_os()).is_ok_and(|found| !found.is_empty()) {
            context
                .note("there are keys in the environment; they count with --keys-from-env alone");
        }
        Ok(keys)
    }

    fn log_target(&self) -> Option<LogTarget> {
        match &self.log_file {
            Some(file) if file == Path::new("-") => Some(LogTarget::Stderr),
            Some(file) => Some(LogTarget::File(file.clone())),
            None if io::stderr().is_terminal() => None,
            None => Some(LogTarget::Stderr),
        }
    }
}

/// The name and the model of an argument. A file is called as it is, without folder and ending.
fn named(text: &str) -> (String, String) {
    if let Some((name, source)) = text.split_once('=')
        && !name.is_empty()
        && !name.contains(['/', '\\'])
    {
        return (name.to_owned(), source.to_owned());
    }
    let path = Path::new(text);
    let stem = path.file_stem().filter(|_| path.exists());
    let name = stem.map_or_else(|| text.into(), |stem| stem.to_string_lossy());
    (name.into_owned(), text.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "it is no number of seconds above 0, such as 30 or 0.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || "it is no rate and burst, such as 1/3 or 0.5/10".to_owned();
    let (rate, burst) = text.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(wrong()),
    };
    Ok(Rate {
        per_second: number(rate)?,
        capacity: number(burst)?.max(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_names_of_their_own_or_are_called_as_they_are() {
        for (text, name, source) in [
            ("small=smollm2:135m", "small", "smollm2:135m"),
            ("smollm2:135m", "smollm2:135m", "smollm2:135m"),
            ("a=b=c", "a", "b=c"),
            ("=x", "=x", "=x"),
            ("./a=b.gguf", "./a=b.gguf", "./a=b.gguf"),
        ] {
            assert_eq!(named(text), (name.to_owned(), source.to_owned()), "{text}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tiny.q4.gguf");
        std::fs::write(&file, "").expect("written");
        assert_eq!(named(&file.display().to_string()).0, "tiny.q4");
    }

    #[test]
    fn rates_and_seconds_are_above_nothing() {
        let expected = Rate {
            per_second: 0.5,
            capacity: 10.0,
        };
        assert_eq!(rate("0.5/10"), Ok(expected));
        for text in ["", "1", "0/3", "1/0", "1/-1", "nan/1", "a/b"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "-1", "nan", "1e300", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
