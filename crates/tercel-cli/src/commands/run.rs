//! `tercel run`: ask a model, or chat with it.

mod asked;
mod stdin;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use tercel::source::Store;
use tercel::{
    CancelHandle, Engine, EngineBuilder, Error, Event, Grammar, Message, Request, Sampling,
    StopReason,
};

use crate::args::{EngineArgs, SamplingArgs};
use crate::config::Settings;
use crate::context::Context;
use crate::failure::Failure;
use crate::files::read_text;
use crate::output::Line;
use crate::reply::ReplyWriter;
use crate::session::Session;
use crate::{chat, format, load};
use asked::Asked;
pub(super) use stdin::read_stdin;

/// Ask a model and stream its reply, or chat with it
///
/// A single argument is the MODEL if it is an existing path, a catalog name or nearly one,
/// hf:org/repo, or a word with `:` or `/` or ending in .gguf. Otherwise it is the PROMPT, and the
/// default model is asked. -m and -p say it outright.
///
/// Without a PROMPT on a terminal this is a chat; otherwise the prompt is read from standard input.
/// With both, the prompt is PROMPT, an empty line, and what stands on standard input.
///
/// The reply goes to standard output as it comes, everything else to standard error: progress,
/// notes, and one line of statistics at the end. Ctrl-C ends the reply. What a model itself
/// recommends comes before the defaults named here.
///
/// What a model thinks before it answers is shown dimmed on a terminal. Where standard output is
/// none, it carries the answer alone; --json has the thought as events of its own.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel run \"Why is the sky blue?\"
  tercel run smollm2:135m \"Name three birds.\" --temperature 0 --max-new-tokens 50
  tercel run -p \"Summarise this text.\" < article.txt
  tercel run gemma3:270m \"Once upon a time\" --seed 7
  tercel run model.gguf --template chatml.jinja
  tercel run \"Describe a sparrow.\" --schema bird.json
  tercel run --session trip.chat \"And on the second day?\"
  tercel run \"Say hello.\" --json | jq -r 'select(.event == \"delta\").text'")]
pub(crate) struct Args {
    /// A catalog name, a GGUF file, or hf:org/repo [default: smollm2:135m]
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// What to ask
    #[arg(value_name = "PROMPT")]
    second: Option<String>,
    /// The model, whatever it looks like
    #[arg(short, long, value_name = "MODEL", conflicts_with = "second")]
    model: Option<String>,
    /// The prompt, whatever it looks like
    #[arg(
        short,
        long,
        value_name = "PROMPT",
        conflicts_with = "second",
        allow_hyphen_values = true
    )]
    prompt: Option<String>,
    /// Instructions to the model that come before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A chat template (Jinja) in place of the model's own
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Answer with JSON that the schema in FILE describes
    #[arg(long, value_name = "FILE", help_heading = "Answer", group = "form")]
    schema: Option<PathBuf>,
    /// Answer with a text that this regular expression matches as a whole
    #[arg(
        long,
        value_name = "PATTERN",
        help_heading = "Answer",
        group = "form",
        allow_hyphen_values = true
    )]
    regex: Option<String>,
    /// Answer with a text of the grammar in FILE: Lark, or GBNF
    #[arg(long, value_name = "FILE", help_heading = "Answer", group = "form")]
    grammar: Option<PathBuf>,
    /// Use no template: continue the prompt as it stands
    #[arg(long, conflicts_with_all = ["template", "system"])]
    raw: bool,
    /// Keep the conversation in FILE, and go on with it where there is one; written after each
    /// reply
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    session: Option<PathBuf>,
    /// Go on with the texts of a session alone, whatever model, template or build wrote it
    #[arg(long, requires = "session")]
    session_transcript: bool,
    /// Print one JSON object a line: load, note, thinking, delta, and at the end done or error
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Tokens that prompt and reply may have together, at least 2 [default: 4096, or less where
    /// the model was trained for less]
    #[arg(long, value_name = "N", help_heading = "Engine")]
    max_context: Option<usize>,
}

/// Far more than any template has; the engine's own limit is lower.
const MOST_TEMPLATE_BYTES: u64 = 1 << 20;
/// The engine's own limit is lower.
const MOST_GRAMMAR_BYTES: u64 = 1 << 20;

/// What can be refused is refused before anything is read, fetched or loaded.
pub(crate) fn run(mut args: Args, context: &Context) -> Result<(), Failure> {
    let sampling = args.sampling.sampling();
    sampling.validate()?;
    let template = args.template.as_ref();
    let template = template.map(|path| read_text("template file", path, MOST_TEMPLATE_BYTES));
    let template = template.transpose()?;
    let form = args.form()?;
    let store = Store::open_default()?;
    let Asked { model, prompt } = Asked::of(&args, store.catalog())?;
    store
        .parse(&model)
        .map_err(|error| asked::explain(error.into(), &args))?;
    let settings = args.configure(&model, &sampling)?;

    let prompt = match prompt {
        None if args.may_chat(context) => None,
        given => Some(stdin::prompt(given, context)?),
    };
    if form.is_some() && (prompt.is_none() || args.session.is_some()) {
        let message = "--schema, --regex and --grammar are for one prompt, not for a conversation";
        return Err(Failure::Usage(message.to_owned()));
    }
    if prompt
        .as_ref()
        .is_some_and(|prompt| prompt.trim().is_empty())
    {
        return Err(Failure::from(Error::EmptyPrompt)
            .with_hint("give one, as in `tercel run \"Why is the sky blue?\"`"));
    }
    settings.tell(false, context);
    let builder = args.builder(&model, template).store(store);
    let builder = builder.sampling(settings.sampling.clone());
    let engine = (args.engine.keep_to_cores())
        .and_then(|()| load::engine(builder, &model, context))
        .map_err(|failure| settings.explain(failure))?;
    let path = args.session.clone();
    let session = path.map(|path| Session::new(path, args.session_transcript));
    if let (Some(prompt), None) = (&prompt, &session) {
        let request = args.request(prompt.clone(), &engine, context);
        let mut request = request.sampling(sampling);
        if let Some(form) = form {
            request = request.constrained(form);
        }
        let stream = engine.stream(request)?;
        let cancel = stream.cancel_handle();
        return answer(stream, cancel, context);
    }
    if !engine.info().has_template {
        return Err(Error::NoChatTemplate.into());
    }
    let mut chat = match &session {
        Some(session) => session.open(&engine, sampling)?,
        None => engine.chat().sampling(sampling),
    };
    if let Some(text) = args.system {
        chat.set_system(Some(text));
    }
    match (prompt, session) {
        (Some(prompt), Some(session)) => {
            let stream = chat.stream(prompt)?;
            let cancel = stream.cancel_handle();
            let answered = answer(stream, cancel, context);
            session.save(&chat)?;
            answered
        }
        (_, session) => chat::run(chat, &engine, session.as_ref(), context),
    }
}

impl Args {
    fn may_chat(&self, context: &Context) -> bool {
        !self.raw && !self.json && context.out.is_terminal() && io::stdin().is_terminal()
    }

    /// Takes from the user's settings for the model what the command line left out.
    fn configure(&mut self, model: &str, sampling: &Sampling) -> Result<Settings, Failure> {
        let mut settings = Settings::of(model)?;
        self.engine.fill(&mut settings);
        settings.fill("max_context", &mut self.max_context, |own| own.max_context);
        settings.use_sampling(sampling);
        Ok(settings)
    }

    /// What the answer must be.
    fn form(&self) -> Result<Option<Grammar>, Failure> {
        let read = |what: &str, path: &PathBuf| read_text(what, path, MOST_GRAMMAR_BYTES);
        if let Some(path) = &self.schema {
            let text = read("schema", path)?;
            let schema = serde_json::from_str(&text).map_err(|error| {
                let message = format!("schema {} is not JSON: {error}", path.display());
                Failure::new("invalid_grammar", message)
            })?;
            return Ok(Some(Grammar::JsonSchema(schema)));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(Grammar::of(read("grammar", path)?)));
        }
        Ok(self.regex.clone().map(Grammar::Regex))
    }

    fn builder(&self, model: &str, template: Option<String>) -> EngineBuilder {
        let mut builder = self.engine.apply(Engine::builder(model));
        if let Some(tokens) = self.max_context {
            builder = builder.max_context(tokens);
        }
        if let Some(source) = template {
            builder = builder.template(source);
        }
        builder
    }

    /// The prompt as a turn of a conversation, or as it stands where there is no template.
    fn request(&self, prompt: String, engine: &Engine, context: &Context) -> Request {
        if self.raw {
            return Request::prompt(prompt);
        }
        // Instructions have no place without a template; the engine says so.
        if !engine.info().has_template && self.system.is_none() {
            context.note("this model has no chat template; continuing the text as it is");
            return Request::prompt(prompt);
        }
        let system = self.system.as_ref().map(Message::system);
        Request::chat(system.into_iter().chain([Message::user(prompt)]).collect())
    }
}

/// Streams one reply.
fn answer(
    stream: impl Iterator<Item = Result<Event, Error>>,
    cancel: CancelHandle,
    context: &Context,
) -> Result<(), Failure> {
    let out = context.out;
    let _guard = context.interrupt.cancels(cancel);
    let mut writer = ReplyWriter::new(out);
    let mut done = None;
    for event in stream {
        let event = event?;
        if !out.is_json() {
            writer.write(&event)?;
        } else if let Some(line) = Line::reply(&event) {
            out.json(&line)?;
        }
        if let Event::Done(reply) = event {
            done = Some(reply);
        }
    }
    let Some(reply) = done else {
        return Err(Error::EngineClosed.into());
    };
    if !out.is_json() {
        writer.finish()?;
        if reply.usage.lost_bytes > 0 {
            context.note(&format!(
                "{} of the prompt cannot be expressed in this model's vocabulary and were left out",
                format::plural(reply.usage.lost_bytes, "byte")
            ));
        }
        if let Some(report) = &reply.context {
            context.note(&report.to_string());
        }
        if !context.quiet {
            out.aside(&format::statistics(&reply));
        }
    }
    if reply.stop_reason == StopReason::Cancelled {
        return Err(Failure::ReplyInterrupted);
    }
    Ok(())
}
