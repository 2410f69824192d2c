//! Chat templates: renders equal to those of `transformers`, and what hostile templates get.

#![expect(clippy::expect_used, reason = "a test says what it expects")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tercel_text::{ChatTemplate, Markers, Message, TemplateInput, TextError, limits};

#[derive(serde::Deserialize)]
struct Renders {
    renders: Vec<Render>,
}

#[derive(serde::Deserialize)]
struct Render {
    template: String,
    conversation: String,
    messages: Vec<Message>,
    tools: Option<serde_json::Value>,
    extra: serde_json::Map<String, serde_json::Value>,
    add_generation_prompt: bool,
    bos_token: String,
    eos_token: String,
    text: Option<String>,
    error: Option<String>,
}

fn data(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/templates");
    let bytes = std::fs::read(root.join(name)).expect("a committed file");
    String::from_utf8(bytes).expect("UTF-8")
}

/// The control tokens of all the models, as if one had them all.
fn markers() -> Markers {
    Markers::new([
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<bos>", "<eos>", "<start_of_turn>",
        "<end_of_turn>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>",
        "<|end_header_id|>", "<s>", "</s>",
    ])
}

#[test]
fn renders_equal_those_of_transformers() {
    let file: Renders = serde_json::from_str(&data("renders.json")).expect("a committed file");
    assert!(file.renders.len() >= 300);
    let mut wrong = Vec::new();
    for render in &file.renders {
        let template = ChatTemplate::new(&data(&format!("{}.jinja", render.template)));
        let template = template.expect("a sound template");
        for markers in [Markers::default(), markers()] {
            let mut input = TemplateInput::new(&render.messages, &markers);
            input.tools = render.tools.as_ref();
            input.extra = render.extra.clone();
            input.add_generation_prompt = render.add_generation_prompt;
            input.bos_token = &render.bos_token;
            input.eos_token = &render.eos_token;
            let found = template.render(&input);
            let found = found.as_ref().map(tercel_text::Rendered::text);
            let same = match (&render.text, &found) {
                (Some(text), Ok(found)) => text == found,
                (None, Err(_)) => true,
                _ => false,
            };
            if !same {
                wrong.push(format!(
                    "{} / {} (markers: {}, prompt: {}):\n  {found:?}\n  {:?} {:?}",
                    render.template,
                    render.conversation,
                    !markers.is_empty(),
                    render.add_generation_prompt,
                    render.text.as_deref().unwrap_or_default(),
                    render.error.as_deref().unwrap_or_default(),
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
