//! Conversations with tools, for templates that know of none.

use serde_json::json;

use super::Tool;
use crate::message::{Message, Role, ToolCall};

/// The same conversation in words alone: the tools in its instructions, calls as they are to be
/// written (the form of [`ToolFormat::Json`](super::ToolFormat::Json)), and their results as what
/// the user says.
pub fn write_out(messages: &[Message], tools: &[Tool]) -> Vec<Message> {
    let mut written: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut answers = false;
    for message in messages {
        let mut message = message.clone();
        let is_answer = message.role == Role::Tool;
        if is_answer {
            let content = format!("<tool_response>\n{}\n</tool_response>", message.content);
            // Results stand in one turn: many templates want turns to alternate.
            if let Some(last) = written.last_mut().filter(|_| answers) {
                last.content.push('\n');
                last.content.push_str(&content);
                continue;
            }
            message = Message::user(content);
        }
        if answers
            && message.role == Role::User
            && !is_answer
            && let Some(last) = written.last_mut()
        {
            last.content.push_str("\n\n");
            last.content.push_str(&message.content);
            answers = false;
            continue;
        }
        answers = is_answer;
        for call in std::mem::take(&mut message.tool_calls) {
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            message.content.push_str(&written_call(&call));
        }
        written.push(message);
    }
    if !tools.is_empty() {
        let instructions = instructions(tools);
        match written.first_mut().filter(|it| it.role == Role::System) {
            Some(system) => {
                system.content.push_str("\n\n");
                system.content.push_str(&instructions);
            }
            None => written.insert(0, Message::system(instructions)),
        }
    }
    written
}

fn written_call(call: &ToolCall) -> String {
    let object = json!({ "name": call.name, "arguments": call.arguments });
    format!("<tool_call>\n{object}\n</tool_call>")
}

fn instructions(tools: &[Tool]) -> String {
    let mut text =
        "You can call tools. Each line between <tools> and </tools> describes one:\n<tools>\n"
            .to_owned();
    for tool in tools {
        text.push_str(&tool.function().to_string());
        text.push('\n');
    }
    text.push_str(
        "</tools>\n\
         To call a tool, write its name and its arguments as JSON between <tool_call> and \
         </tool_call>, like this:\n\
         <tool_call>\n{\"name\": \"tool name\", \"arguments\": {\"key\": \"value\"}}\n</tool_call>\n\
         What it returns comes between <tool_response> and </tool_response>. Then answer in words.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_calls_and_results_become_words() {
        let call = |city| ToolCall::new("weather", json!({ "city": city }));
        let messages = [
            Message::user("q"),
            Message::assistant("I look.")
                .with_tool_call(call("Oslo"))
                .with_tool_call(call("Rome")),
            Message::tool("cold").with_name("weather"),
            Message::tool("warm"),
            Message::user("And now?"),
            Message::assistant("a"),
        ];
        let tool = Tool::new("weather", json!({"type": "object"})).with_description("Tells it.");
        let written = write_out(&messages, std::slice::from_ref(&tool));
        let roles: Vec<&str> = written.iter().map(|it| it.role.name()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
        assert!(written[0].content.contains(&tool.function().to_string()));
        assert!(written[0].content.contains("<tool_call>"));
        assert_eq!(
            written[2].content,
            "I look.\n<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Oslo\"}}\n</tool_call>\n\
             <tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Rome\"}}\n</tool_call>"
        );
        assert!(written[2].tool_calls.is_empty());
        assert_eq!(
            written[3].content,
            "<tool_response>\ncold\n</tool_response>\n<tool_response>\nwarm\n</tool_response>\n\nAnd now?"
        );

        let with_system = [Message::system("Be brief."), Message::user("q")];
        let written = write_out(&with_system, &[tool]);
        assert_eq!(written.len(), 2);
        assert!(
            written[0]
                .content
                .starts_with("Be brief.\n\nYou can call tools.")
        );
        assert_eq!(write_out(&with_system, &[]), with_system);
    }
}
