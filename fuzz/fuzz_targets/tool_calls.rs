//! Reads any text as a reply with calls of tools, in every form, whole and in pieces: the calls and
//! the text are the same, and no text is lost where nothing was a call.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tercel_text::tools::{Tool, ToolFormat, ToolStream};

const FORMATS: [ToolFormat; 5] = [
    ToolFormat::Json,
    ToolFormat::Xml,
    ToolFormat::Llama,
    ToolFormat::Mistral,
    ToolFormat::Gemma,
];

fuzz_target!(|data: (u8, u8, &str)| {
    let (format, size, text) = data;
    let format = FORMATS[usize::from(format) % FORMATS.len()];
    let whole = read(format, text, usize::MAX);
    let pieces = read(format, text, usize::from(size) + 1);
    assert_eq!(whole, pieces);
    let (said, calls) = whole;
    if calls.is_empty() {
        assert_eq!(said, text);
    }
});

type Read = (String, Vec<(String, serde_json::Value)>);

fn read(format: ToolFormat, text: &str, size: usize) -> Read {
    let properties = json!({"a": {"type": "string"}, "b": {"type": "integer"}});
    let tool = Tool::new("f", json!({"type": "object", "properties": properties}));
    let mut stream = ToolStream::new(format, Arc::from([tool]));
    let mut said = String::new();
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(size.min(characters.len().max(1))) {
        said.push_str(&stream.push(&piece.iter().collect::<String>()).text);
    }
    said.push_str(&stream.finish().text);
    (said, stream.calls().to_vec())
}
