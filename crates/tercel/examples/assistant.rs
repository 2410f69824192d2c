//! A local assistant with two tools, which it uses by itself.
//!
//! `cargo run --release --example assistant -- smollm2:135m "What is 127 times 49?"`
#![expect(clippy::print_stdout, reason = "it is for a terminal")]

use std::error::Error;
use std::time::SystemTime;

use serde_json::{Value, json};
use tercel::{Engine, Event, Tool, ToolChoice, Toolbox};

fn calculate(arguments: &Value) -> Result<Value, String> {
    let number = |name: &str| arguments[name].as_f64().ok_or("a number is missing");
    let (a, b) = (number("a")?, number("b")?);
    match arguments["operation"].as_str() {
        Some("plus") => Ok(json!(a + b)),
        Some("minus") => Ok(json!(a - b)),
        Some("times") => Ok(json!(a * b)),
        _ if b == 0.0 => Err(format!("{a} cannot be divided by 0")),
        _ => Ok(json!(a / b)),
    }
}

fn clock(_: &Value) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let (hours, minutes) = (now.as_secs() / 3600 % 24, now.as_secs() / 60 % 60);
    Ok(json!(format!("{hours:02}:{minutes:02} UTC")))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or("smollm2:135m".into());
    let question = args.next().unwrap_or("What is 127 times 49?".into());
    let nothing = json!({"additionalProperties": false});
    let schema = json!({"additionalProperties": false, "required": ["a", "operation", "b"],
        "properties": {"a": {"type": "number"},
            "operation": {"enum": ["plus", "minus", "times", "divided by"]},
            "b": {"type": "number"}}});
    let calculator = Tool::new("calculate", schema).with_description("Calculates.");
    let watch = Tool::new("clock", nothing).with_description("Tells the time.");
    let tools = Toolbox::new().with(calculator, calculate);
    let engine = Engine::builder(model).load()?;
    // A model of this size seldom calls by itself; a larger one needs no `tool_choice`.
    let mut chat = (engine
        .chat()
        .tools(tools.with(watch, clock))
        .temperature(0.0))
    .tool_choice(ToolChoice::Required);
    for event in chat.stream(question)? {
        match event? {
            Event::ToolResult { name, content, .. } => println!("[{name}: {content}]"),
            Event::Done(reply) => println!("{}", reply.text),
            _ => {}
        }
    }
    Ok(())
}
