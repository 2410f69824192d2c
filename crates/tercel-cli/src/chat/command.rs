//! What begins with a slash.

use std::path::PathBuf;

/// The answer to `/help`.
pub(super) const HELP: &str = "\
/system [TEXT]       show or set the instructions to the model; `off` removes them
/set [NAME [VALUE]]  show or set how replies are made; VALUE `default` takes it back
/retry               have the last message answered anew
/edit TEXT           say TEXT in the place of the last message
/undo [N]            take the last message and its answer back, or the last N
/reset               forget the conversation, keep the instructions
/stats               figures of the last reply
/save FILE           write the conversation to FILE, as .json or .md
/quit                leave, as Ctrl-D does
Ctrl-C ends a reply. A line that ends with \\ goes on in the next one; so does
everything between \"\"\" and \"\"\".";

/// A command of the chat.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Help,
    System(Option<String>),
    Set(Change),
    Retry,
    Edit(String),
    Undo(usize),
    Reset,
    Stats,
    Save(PathBuf),
    Quit,
}

/// What `/set` is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    ShowAll,
    Show(String),
    Set { name: String, value: String },
}

/// What completion offers; a space where something may follow.
pub(super) const NAMES: [&str; 10] = [
    "/edit ", "/help", "/quit", "/reset", "/retry", "/save ", "/set ", "/stats", "/system ",
    "/undo",
];

impl Command {
    /// Reads a line that begins with a slash, or says what is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let text = (!rest.is_empty()).then(|| rest.to_owned());
        let alone = |command: Self| match &text {
            None => Ok(command),
            Some(text) => Err(format!("{name} takes nothing, not `{text}`")),
        };
        match name {
            "/help" | "/?" => alone(Self::Help),
            "/retry" => alone(Self::Retry),
            "/reset" => alone(Self::Reset),
            "/stats" => alone(Self::Stats),
            "/quit" | "/exit" | "/bye" => alone(Self::Quit),
            "/system" => Ok(Self::System(text)),
            "/edit" => match text {
                Some(text) => Ok(Self::Edit(text)),
                None => Err("/edit needs the new text of your last message".to_owned()),
            },
            "/undo" => match text.as_deref().unwrap_or("1").parse() {
                Ok(turns @ 1..) => Ok(Self::Undo(turns)),
                _ => Err(format!("/undo takes a number of messages, not `{rest}`")),
            },
            "/save" => match text {
                Some(path) => Ok(Self::Save(path.into())),
                None => Err("/save needs a file, such as talk.md or talk.json".to_owned()),
            },
            "/set" => Ok(Self::Set(match rest.split_once(char::is_whitespace) {
                Some((name, value)) => Change::Set {
                    name: name.to_owned(),
                    value: value.trim().to_owned(),
                },
                None => text.map_or(Change::ShowAll, Change::Show),
            })),
            _ => Err(format!("no command {name}; /help lists them")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_what_follows_them() {
        let set = |name: &str, value: &str| {
            Command::Set(Change::Set {
                name: name.into(),
                value: value.into(),
            })
        };
        for (line, command) in [
            ("/help", Command::Help),
            ("  /quit  ", Command::Quit),
            ("/bye", Command::Quit),
            ("/system", Command::System(None)),
            (
                "/system Be brief.\nAlways.",
                Command::System(Some("Be brief.\nAlways.".into())),
            ),
            ("/retry", Command::Retry),
            ("/undo", Command::Undo(1)),
            ("/undo 3", Command::Undo(3)),
            ("/edit one\ntwo", Command::Edit("one\ntwo".into())),
            ("/set", Command::Set(Change::ShowAll)),
            ("/set top_k", Command::Set(Change::Show("top_k".into()))),
            ("/set top_k  5", set("top_k", "5")),
            ("/set stop two words", set("stop", "two words")),
            ("/save my talk.md", Command::Save("my talk.md".into())),
        ] {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
        for (line, part) in [
            ("/nonsense", "no command /nonsense"),
            ("/", "no command /"),
            ("/reset now", "takes nothing"),
            ("/save", "needs a file"),
        ] {
            let message = Command::parse(line).expect_err(line);
            assert!(message.contains(part), "{message}");
        }
        assert!(
            NAMES
                .iter()
                .all(|name| !matches!(Command::parse(name), Err(e) if e.contains("no command")))
        );
    }
}
