use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::testing::{answers, engine};
use crate::{Chat, Event, Role, StopReason, Tool, ToolChoice, Toolbox};

const CALL: &str =
    "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}\n</tool_call>";

/// A box with one tool, which notes what it is run with.
fn adds(result: Result<i64, &'static str>) -> (Toolbox, Arc<Mutex<Vec<Value>>>) {
    let number = json!({"type": "integer", "minimum": 0, "maximum": 9});
    let schema = json!({
        "type": "object",
        "properties": {"a": number, "b": number},
        "required": ["a", "b"],
        "additionalProperties": false,
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let run = move |arguments: &Value| {
        notes.lock().expect("no panic").push(arguments.clone());
        result.map(Value::from)
    };
    (Toolbox::new().with(Tool::new("add", schema), run), seen)
}

/// A chat with a model that calls until it was told so many results, and then says what it was told.
fn chat(rounds: usize, toolbox: Toolbox) -> Chat {
    let (engine, _) = engine(
        8_000,
        answers(move |prompt| {
            let asked = prompt.rfind("u:q").map_or("", |at| &prompt[at..]);
            let told: Vec<&str> = asked.split("<tool_response>\n").skip(1).collect();
            match told.last() {
                Some(last) if told.len() >= rounds => {
                    format!("It is {}", last.lines().next().unwrap_or_default())
                }
                _ if rounds == 0 => "hi".to_owned(),
                _ => CALL.to_owned(),
            }
        }),
    );
    engine
        .chat()
        .tools(toolbox)
        .temperature(0.0)
        .max_new_tokens(200)
}

fn roles(chat: &Chat) -> Vec<Role> {
    chat.history().iter().map(|it| it.role).collect()
}

#[test]
fn what_is_called_is_run_and_the_chat_goes_on() {
    let (toolbox, seen) = adds(Ok(3));
    let mut chat = chat(2, toolbox);
    let reply = chat.ask("q").expect("a reply");
    assert_eq!(
        (&*reply.text, reply.stop_reason),
        ("It is 3", StopReason::Eos)
    );
    assert_eq!(
        *seen.lock().expect("no panic"),
        vec![json!({"a": 1, "b": 2}); 2]
    );
    let (user, said, tool) = (Role::User, Role::Assistant, Role::Tool);
    assert_eq!(roles(&chat), [user, said, tool, said, tool, said]);
    let call = &chat.history()[1].tool_calls[0];
    assert_eq!(chat.history()[2].tool_call_id, call.id);
    assert_eq!(chat.history()[2].content, "3");
    // The turn is one, with all that was called in it.
    assert_eq!(chat.turns(), 1);
    chat.rewind(1).expect("a turn");
    assert!(chat.history().is_empty());
}

#[test]
fn a_stream_tells_calls_results_and_the_answer() {
    let (toolbox, _) = adds(Ok(3));
    let mut chat = chat(1, toolbox);
    let mut told = Vec::new();
    for event in chat.stream("q").expect("accepted") {
        let event = match event.expect("an event") {
            Event::ToolCall {
                name: Some(name), ..
            } => format!("call {name}"),
            Event::ToolCall { .. } | Event::Delta { .. } => continue,
            Event::ToolResult { name, content, .. } => format!("{name} gave {content}"),
            Event::Done(reply) => reply.text,
            event => panic!("{event:?}"),
        };
        told.push(event);
    }
    assert_eq!(told, ["call add", "add gave 3", "It is 3"]);
    assert_eq!(chat.history().len(), 4);
}

#[test]
fn rounds_have_a_limit_and_failures_are_told() {
    let (toolbox, seen) = adds(Err("out of numbers"));
    let mut endless = chat(usize::MAX, toolbox.clone()).max_tool_rounds(3);
    let reply = endless.ask("q").expect("a reply");
    assert_eq!(seen.lock().expect("no panic").len(), 3);
    assert!(
        reply.tool_calls.is_empty() && !reply.text.contains("<tool_call>"),
        "{}",
        reply.text
    );
    assert_eq!(
        endless.history()[2].content,
        "{\"error\":\"out of numbers\"}"
    );

    let mut without = chat(1, toolbox).max_tool_rounds(0);
    without.ask("q").expect("a reply");
    assert_eq!(
        seen.lock().expect("no panic").len(),
        3,
        "nothing more was run"
    );
}

#[test]
fn the_first_reply_of_a_turn_calls_what_is_required() {
    let (toolbox, seen) = adds(Ok(3));
    // It would just say hi.
    let mut chat = chat(0, toolbox).tool_choice(ToolChoice::Required);
    let reply = chat.ask("q").expect("a reply");
    assert_eq!(seen.lock().expect("no panic").len(), 1, "{reply:?}");
    assert_eq!(reply.stop_reason, StopReason::Eos);
    assert!(reply.tool_calls.is_empty());
    let none = ToolChoice::Named("other".to_owned());
    let error = chat.tool_choice(none).ask("q").expect_err("no such tool");
    assert_eq!(error.kind(), "invalid_parameter");
}

#[test]
fn a_turn_that_is_cancelled_between_its_replies_is_taken_back() {
    let handle = Arc::new(Mutex::new(None::<crate::CancelHandle>));
    let cancels = Arc::clone(&handle);
    let toolbox = Toolbox::new().with(Tool::new("add", Value::Null), move |_| {
        // While the tool runs, no request does.
        if let Some(handle) = &*cancels.lock().expect("no panic") {
            handle.cancel();
        }
        Ok::<_, std::convert::Infallible>(Value::Null)
    });
    let mut chat = chat(1, toolbox);
    let stream = chat.stream("q").expect("accepted");
    *handle.lock().expect("no panic") = Some(stream.cancel_handle());
    let reply = stream.wait().expect("a reply");
    assert_eq!(reply.stop_reason, StopReason::Cancelled);
    assert!(chat.history().is_empty(), "{:?}", chat.history());
}
