//! A chat on a terminal.

mod command;
mod input;
mod save;
mod settings;

use tercel::{Chat, Engine, Event, Reply, StopReason};

use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::reply::ReplyWriter;
use crate::terminal::one_line;
use command::Command;
use input::{Input, Said};

/// Talks until the user leaves.
pub(crate) fn run(chat: Chat, engine: &Engine, context: &Context) -> Result<(), Failure> {
    context.interrupt.keep_process();
    let mut conversation = Conversation {
        chat,
        engine,
        context,
        last: None,
    };
    conversation.greet()?;
    let mut input = Input::open()?;
    loop {
        match input.next(context.out)? {
            Said::Nothing => {}
            Said::End => return Ok(()),
            Said::Text(text) => conversation.say(&text)?,
            Said::Command(line) => match Command::parse(&line) {
                Ok(Command::Quit) => return Ok(()),
                Ok(command) => conversation.obey(command)?,
                Err(message) => conversation.tell(&message)?,
            },
        }
    }
}

struct Conversation<'a> {
    chat: Chat,
    engine: &'a Engine,
    context: &'a Context,
    last: Option<Reply>,
}

impl Conversation<'_> {
    fn greet(&self) -> Result<(), Failure> {
        let info = self.engine.info();
        let greeting = format!(
            "{} | {} tokens of context | {}, {} | /help, Ctrl-D to leave",
            one_line(&info.id),
            info.max_context,
            info.backend,
            format::plural(info.threads, "thread")
        );
        self.tell(&greeting)
    }

    /// One turn. What goes wrong with it does not end the chat.
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        match self.reply(text) {
            Ok(Some(reply)) => {
                if let Some(report) = &reply.context {
                    self.context.note(&report.to_string());
                }
                if reply.stop_reason == StopReason::Cancelled {
                    self.tell(&format!("(interrupted) {}", format::statistics(&reply)))?;
                }
                if reply.stop_reason == StopReason::ContextFull {
                    self.tell("(the context is full; /reset starts afresh)")?;
                }
                self.last = Some(reply);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(failure @ Failure::Error { .. }) => {
                let failure = match &failure {
                    Failure::Error {
                        kind: "context_overflow",
                        ..
                    } => failure.with_hint(
                        "/reset forgets the conversation so far, /undo its last turn; \
                         `/set context_overflow drop_oldest_turns` drops the oldest",
                    ),
                    _ => failure,
                };
                self.context.out.failure(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn reply(&mut self, text: &str) -> Result<Option<Reply>, Failure> {
        let out = self.context.out;
        self.context.interrupt.clear();
        let stream = self.chat.stream(text)?;
        let _guard = self.context.interrupt.cancels(stream.cancel_handle());
        let mut writer = ReplyWriter::new(out);
        for event in stream {
            let event = event?;
            writer.write(&event)?;
            if let Event::Done(reply) = event {
                writer.finish()?;
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    fn obey(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Help => self.context.out.line(command::HELP),
            Command::System(text) => self.system(text),
            Command::Set(change) => {
                match settings::set(&mut self.chat, self.engine.model_sampling(), &change) {
                    Ok(text) | Err(text) => self.tell(&text),
                }
            }
            Command::Reset => {
                self.chat.reset();
                self.last = None;
                self.tell("(the conversation starts afresh)")
            }
            Command::Stats => self.statistics(),
            Command::Save(path) => {
                let info = self.engine.info();
                match save::save(&path, &info.id, self.chat.history()) {
                    Ok(turns) => self.tell(&format!(
                        "(saved {} to {})",
                        format::plural(turns, "message"),
                        one_line(&path.display().to_string())
                    )),
                    Err(message) => self.tell(&message),
                }
            }
            // The loop leaves before.
            Command::Quit => Ok(()),
        }
    }

    fn system(&mut self, text: Option<String>) -> Result<(), Failure> {
        match text {
            None => {
                let system = self.chat.history().first();
                match system.filter(|message| message.role == tercel::Role::System) {
                    Some(message) => self
                        .context
                        .out
                        .model_text(&format!("{}\n", message.content)),
                    None => self.tell("(no instructions; `/system TEXT` gives some)"),
                }
            }
            Some(text) if text == "off" => {
                self.chat.set_system(None);
                self.tell("(the instructions are removed)")
            }
            Some(text) => {
                self.chat.set_system(Some(text));
                self.tell("(the instructions hold from the next message on)")
            }
        }
    }

    fn statistics(&self) -> Result<(), Failure> {
        let Some(reply) = &self.last else {
            return self.tell("(no reply yet)");
        };
        let used = reply.usage.prompt_tokens + reply.usage.generated_tokens;
        let all = self.engine.info().max_context;
        self.tell(&format::statistics(reply))?;
        let memory = self.engine.info().memory.total_bytes as u64;
        self.tell(&format!(
            "context {used} of {all} tokens | memory {}",
            format::bytes(memory)
        ))
    }

    /// A line of the command itself, apart from what the model says.
    fn tell(&self, text: &str) -> Result<(), Failure> {
        self.context.out.line(&self.context.out.style().dim(text))
    }
}
