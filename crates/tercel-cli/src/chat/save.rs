//! `/save`: the conversation as a file.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::json;
use tercel::{Message, Role};

/// Writes a conversation to a new file, in the form that its extension names, and tells how many
/// messages there are. An error is for the user to read.
pub(super) fn save(path: &Path, model: &str, messages: &[Message]) -> Result<usize, String> {
    let shown = path.display();
    if messages.is_empty() {
        return Err("there is nothing to save yet".to_owned());
    }
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
        .to_lowercase();
    let text = match extension.as_str() {
        "json" => as_json(model, messages)?,
        "md" | "markdown" => as_markdown(model, messages),
        _ => return Err(format!("{shown} should end in .json or .md")),
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("{shown} exists already; choose another name"),
            _ => format!("cannot write {shown}: {error}"),
        })?;
    file.write_all(text.as_bytes())
        .map_err(|error| format!("cannot write {shown}: {error}"))?;
    Ok(messages.len())
}

fn as_json(model: &str, messages: &[Message]) -> Result<String, String> {
    let value = json!({ "model": model, "messages": messages });
    let mut text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
    text.push('\n');
    Ok(text)
}

fn as_markdown(model: &str, messages: &[Message]) -> String {
    let mut text = format!("# A conversation with {model}\n");
    for message in messages {
        let who = match message.role {
            Role::System => "Instructions",
            Role::User => "User",
            _ => "Model",
        };
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {who}\n\n{}\n", message.content.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_written_once_in_the_form_of_its_extension() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = [
            Message::system("Be brief."),
            Message::user("Hi"),
            Message::assistant("Hello!\n"),
        ];
        let saved = |name: &str| {
            let path = directory.path().join(name);
            save(&path, "m", &messages).map(|_| std::fs::read_to_string(path).expect("written"))
        };
        assert_eq!(
            saved("a.md").expect("saved"),
            "# A conversation with m\n\n## Instructions\n\nBe brief.\n\n## User\n\nHi\n\n\
             ## Model\n\nHello!\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&saved("a.json").expect("saved")).expect("JSON");
        assert_eq!(
            json["messages"][1],
            json!({"role": "user", "content": "Hi"})
        );
        assert_eq!(json["model"], "m");
        assert!(
            saved("a.md")
                .expect_err("exists")
                .contains("exists already")
        );
        assert!(
            saved("a.txt")
                .expect_err("no form")
                .contains("should end in .json or .md")
        );
        assert!(
            saved("no/such/place.md")
                .expect_err("no place")
                .contains("cannot write")
        );
        assert!(
            save(Path::new("b.md"), "m", &[])
                .expect_err("empty")
                .contains("nothing")
        );
    }
}
