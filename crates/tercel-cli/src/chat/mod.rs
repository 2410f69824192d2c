//! A chat on a terminal.

mod command;
mod input;
mod save;
mod settings;

pub(crate) use settings::effective as effective_sampling;
use tercel::{Chat, Engine, Event, Reply, StopReason};

use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::reply::ReplyWriter;
use crate::session::Session;
use crate::terminal::one_line;
use command::Command;
use input::{Input, Said};

/// Talks until the user leaves.
pub(crate) fn run(
    chat: Chat,
    engine: &Engine,
    session: Option<&Session>,
    context: &Context,
) -> Result<(), Failure> {
    context.interrupt.keep_process();
    let mut conversation = Conversation {
        chat,
        engine,
        context,
        session,
        last: None,
    };
    conversation.greet()?;
    let mut input = Input::open()?;
    loop {
        match input.next(context.out)? {
            Said::Nothing => {}
            Said::End => return conversation.leave(),
            Said::Text(text) => conversation.say(Turn::Says(text))?,
            Said::Command(line) => match Command::parse(&line) {
                Ok(Command::Quit) => return conversation.leave(),
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
    session: Option<&'a Session>,
    last: Option<Reply>,
}

/// What the model is to reply to.
enum Turn {
    Says(String),
    /// The last message, once more.
    Again,
}

impl Conversation<'_> {
    fn greet(&self) -> Result<(), Failure> {
        let info = self.engine.info();
        let greeting = format!(
            "{} | {} tokens of context | {}, {} | /help, Ctrl-D to leave",
            one_line(&info.id),
            info.max_context,
            info.backend,
            format::threads(info.threads)
        );
        self.tell(&greeting)?;
        match self.chat.turns() {
            0 => Ok(()),
            turns => self.tell(&format!(
                "(goes on after {})",
                format::plural(turns, "turn")
            )),
        }
    }

    /// Keeps the session, with what is computed of it.
    fn leave(&self) -> Result<(), Failure> {
        match self.session {
            Some(session) => session.save(&self.chat),
            None => Ok(()),
        }
    }

    /// One turn. What goes wrong with it does not end the chat.
    fn say(&mut self, turn: Turn) -> Result<(), Failure> {
        let result = self.reply(turn);
        if let Some(session) = self.session
            && let Err(failure) = session.save_transcript(&self.chat)
        {
            self.context.out.failure(&failure);
        }
        match result {
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

    fn reply(&mut self, turn: Turn) -> Result<Option<Reply>, Failure> {
        let out = self.context.out;
        self.context.interrupt.clear();
        let stream = match turn {
            Turn::Says(text) => self.chat.stream(text)?,
            Turn::Again => self.chat.regenerate_stream()?,
        };
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
            Command::Retry => self.say(Turn::Again),
            Command::Edit(text) => {
                let last = self.chat.turns().saturating_sub(1);
                match self.chat.edit(last, text) {
                    Ok(()) => self.say(Turn::Again),
                    Err(_) => self.tell("(there is no message yet)"),
                }
            }
            Command::Undo(turns) => match self.chat.rewind(turns) {
                Ok(()) => {
                    let left = format::plural(self.chat.turns(), "message");
                    self.tell(&format!("(taken back; {left} of yours left)"))
                }
                Err(_) => {
                    let all = format::plural(self.chat.turns(), "message");
                    self.tell(&format!("(there is no more than {all} of yours)"))
                }
            },
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
