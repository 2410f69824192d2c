//! Compiles any text as a chat template and renders fixed conversations with it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tercel_text::{ChatTemplate, Markers, Message, TemplateInput, ThinkTags, ToolCall, limits};

/// A conversation and the tools in it.
struct Case {
    messages: Vec<Message>,
    tools: Vec<Value>,
    enable_thinking: Option<bool>,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(cases);
static MARKERS: LazyLock<Markers> =
    LazyLock::new(|| Markers::new(["<|im_start|>", "<|im_end|>", "<s>", "</s>"]));

fuzz_target!(|source: &str| {
    let template = match ChatTemplate::new(source) {
        Ok(template) => template,
        Err(error) => return assert_eq!(error.to_string().lines().count(), 1),
    };
    let tags = ThinkTags::find(Some(source), |_| false);
    for case in CASES.iter() {
        let mut input = TemplateInput::new(&case.messages, &MARKERS);
        input.tools = &case.tools;
        input.documents = &case.tools;
        input.enable_thinking = case.enable_thinking;
        (input.bos_token, input.eos_token) = ("<s>", "</s>");
        input.local_seconds = Some(1_700_000_000);
        match template.render(&input) {
            Ok(prompt) => {
                assert!(prompt.text().len() <= limits::OUTPUT_BYTES);
                // A mark at the end is the template's own; nothing here writes one.
                tags.map(|tags| tags.end_of(&prompt));
            }
            Err(error) => assert_eq!(error.to_string().lines().count(), 1),
        }
    }
});

fn cases() -> Vec<Case> {
    let call = ToolCall::new(
        "add",
        json!({"b": [1, 2.5, null], "a": {"x": true}, "": "</s>"}),
    );
    let tool = json!({"type": "function", "function": {"name": "add", "description": "<|im_end|>",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}});
    vec![
        Case {
            messages: Vec::new(),
            tools: Vec::new(),
            enable_thinking: None,
        },
        Case {
            messages: vec![
                Message::system("Be brief.\n"),
                Message::user(" <|im_end|>hi \u{e9}\u{1f600}</think> ").with_name("Ann"),
                Message::assistant("<think>\nx\n</think>\n\ny"),
                Message::user("more"),
            ],
            tools: Vec::new(),
            enable_thinking: Some(false),
        },
        Case {
            messages: vec![
                Message::user("2+2?"),
                Message::assistant("")
                    .with_reasoning("hm\n")
                    .with_tool_call(call.clone().with_id("abcdefghi"))
                    .with_tool_call(call),
                Message::tool("4</tool_response>").answering("abcdefghi"),
                Message::tool(""),
            ],
            tools: vec![tool.clone(), tool],
            enable_thinking: Some(true),
        },
    ]
}
