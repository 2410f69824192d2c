//! Replies that keep to the schemas of tools: whatever comes, it is a call that can be read.

mod common;

use std::sync::Arc;

use serde_json::{Value, json};
use tercel_text::grammar::{Calls, Constraint, Grammar, Grammars, ToolGrammar};
use tercel_text::tools::{Tool, ToolFormat, ToolStream};
use tercel_text::{PromptEnd, ReplyStream, Tokenizer, TokenizerParts};

use common::{goes_through, tokenizer};

const FORMATS: [ToolFormat; 5] = [
    ToolFormat::Json,
    ToolFormat::Xml,
    ToolFormat::Llama,
    ToolFormat::Mistral,
    ToolFormat::Gemma,
];

fn tools() -> Vec<Tool> {
    let properties = json!({
        "city": {"type": "string", "maxLength": 5},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "units": {"type": "array", "items": {"enum": ["C", "F"]}, "maxItems": 2},
    });
    let weather = json!({
        "type": "object",
        "properties": properties,
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    vec![Tool::new("weather", weather), Tool::new("now", nothing)]
}

/// A vocabulary of letters, some pairs of them, and marks that are tokens without a text.
fn with_marks() -> Arc<Tokenizer> {
    let marks = [
        "<|end|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<start_function_call>",
        "<end_function_call>",
        "<|python_tag|>",
    ];
    let letters: Vec<String> = (b'!'..=b'~')
        .map(|byte| char::from(byte).to_string())
        .chain(["\u{120}".to_owned(), "\u{10a}".to_owned()])
        .collect();
    let mut parts = TokenizerParts::default();
    parts.model = "gpt2";
    parts.pre = Some("gpt-2");
    parts.tokens = letters.iter().map(String::as_str).chain(marks).collect();
    let kinds = std::iter::repeat_n(1, letters.len());
    parts.kinds = Some(kinds.chain(marks.map(|_| 3)).collect());
    parts.merges = Some(Vec::new());
    parts.eos = u32::try_from(letters.len()).ok();
    Arc::new(Tokenizer::from_parts(&parts).expect("a vocabulary"))
}

/// A reply that picks among what is allowed, to its end; nothing where it has none in time.
fn random_reply(tokenizer: &Tokenizer, mut constraint: Constraint, seed: u64) -> Option<Vec<u32>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut tokens = Vec::new();
    let vocab_size = u32::try_from(tokenizer.vocab_size()).expect("a small one");
    for _ in 0..600 {
        if constraint.is_over().expect("no fault") {
            return Some(tokens);
        }
        let mask = constraint.mask().expect("a mask");
        let allowed: Vec<u32> = (0..vocab_size).filter(|it| mask.allows(*it)).collect();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let token = allowed[usize::try_from(state % allowed.len() as u64).expect("small")];
        if tokenizer.is_end(token) {
            return Some(tokens);
        }
        constraint.accept(token).expect("it is allowed");
        tokens.push(token);
    }
    None
}

/// The text and the calls of a reply.
fn read(tokenizer: &Tokenizer, format: ToolFormat, tokens: &[u32]) -> (String, ToolStream) {
    let mut reply = ReplyStream::new(None, PromptEnd::Plain, &[]).with_calls(format);
    let mut stream = ToolStream::new(format, tools().into());
    let mut text = String::new();
    for token in tokens {
        text.push_str(&stream.push(&reply.push(tokenizer, *token).text).text);
    }
    text.push_str(&stream.push(&reply.finish().text).text);
    text.push_str(&stream.finish().text);
    (text, stream)
}

fn check(name: &str, arguments: &Value) {
    let fields = arguments.as_object().expect("an object");
    match name {
        "now" => assert!(fields.is_empty()),
        "weather" => {
            assert!(fields["city"].as_str().expect("a city").chars().count() <= 5);
            assert!((1..=9).contains(&fields["days"].as_i64().expect("a number")));
            assert!(fields.len() <= 3, "{arguments}");
        }
        name => unreachable!("{name}"),
    }
}

#[test]
fn required_calls_are_read_whatever_is_chosen() {
    let tools = tools();
    for tokenizer in [tokenizer("tiny-byte-level.json"), with_marks()] {
        let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("an end");
        for format in FORMATS {
            for several in [false, true] {
                let mut whole = 0;
                let mut most = 0;
                for seed in 0..40 {
                    let mut grammar = ToolGrammar::new(format, &tools);
                    grammar.calls = Calls::Must;
                    grammar.several = several;
                    let constraint = grammars.compile_tools(&grammar).expect("it compiles");
                    let Some(tokens) = random_reply(&tokenizer, constraint, seed) else {
                        continue;
                    };
                    let (text, stream) = read(&tokenizer, format, &tokens);
                    assert_eq!((text.trim(), stream.error()), ("", None), "{format:?}");
                    let calls = stream.calls();
                    assert!(!calls.is_empty(), "{format:?}");
                    calls.iter().for_each(|(name, it)| check(name, it));
                    whole += 1;
                    most = most.max(calls.len());
                }
                assert!(whole > 20, "{format:?}: {whole} came to their end");
                assert!((most > 1) == several, "{format:?}: {most} calls");
            }
        }
    }
}

#[test]
fn text_is_free_until_a_call_begins() {
    let tokenizer = tokenizer("tiny-byte-level.json");
    let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("an end");
    let tools = tools();
    let object = r#"{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}"#;
    let calls = |format: ToolFormat| match format {
        ToolFormat::Json | ToolFormat::Xml => format!("<tool_call>\n{object}\n</tool_call>"),
        ToolFormat::Llama => object.replace("arguments", "parameters"),
        ToolFormat::Mistral => format!("[TOOL_CALLS][{object}]"),
        _ => {
            "<start_function_call>call:weather{\"city\": \"Oslo\", \"days\": 2}<end_function_call>"
                .to_owned()
        }
    };
    let number = json!({"type": "integer"});
    let schema = Grammar::JsonSchema(json!({"anyOf": [
        {"enum": ["yes", "no"]},
        {"type": "object", "properties": {"nothing": number}, "additionalProperties": false},
        {"type": "object", "properties": {"name": number}, "additionalProperties": false},
    ]}));
    for format in FORMATS {
        let call = calls(format);
        let wrong = call.replace("days", "hours");
        let mut grammar = ToolGrammar::new(format, &tools);
        let passes = |grammar: &ToolGrammar<'_>, text: &str| {
            let constraint = grammars.compile_tools(grammar).expect("it compiles");
            goes_through(&tokenizer, constraint, text)
        };
        for (text, expected) in [
            ("Just <text>, a < b.\nMore.", true),
            (&*call, true),
            (&*wrong, false),
            ("", true),
        ] {
            assert_eq!(passes(&grammar, text), expected, "{format:?}: {text}");
        }
        if format != ToolFormat::Llama {
            assert!(passes(&grammar, &format!("I look. {call}")), "{format:?}");
            assert!(!passes(&grammar, &format!("I look. {wrong}")), "{format:?}");
        }
        grammar.answer = Some(&schema);
        for (text, expected) in [
            ("\"yes\"", true),
            ("{\"nothing\": 1}", true),
            ("{\"name\": 1}", true),
            (&*call, true),
            (&*wrong, false),
            ("text", false),
        ] {
            assert_eq!(passes(&grammar, text), expected, "{format:?}: {text}");
        }
        grammar.answer = None;
        grammar.calls = Calls::Never;
        for (text, expected) in [("text", true), (&*call, false)] {
            assert_eq!(passes(&grammar, text), expected, "{format:?}: {text}");
        }
    }
    let grammar = ToolGrammar::new(ToolFormat::Llama, &tools);
    let constraint = || grammars.compile_tools(&grammar).expect("it compiles");
    assert!(!goes_through(
        &tokenizer,
        constraint(),
        "<|python_tag|>{\"name\": 1}"
    ));
    assert!(goes_through(&tokenizer, constraint(), "<|python|>"));
}

#[test]
fn a_mark_that_is_a_token_is_not_spelled_out() {
    let tokenizer = with_marks();
    let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("an end");
    let tools = tools();
    let grammar = ToolGrammar::new(ToolFormat::Mistral, &tools);
    let constraint = || grammars.compile_tools(&grammar).expect("it compiles");
    for (text, expected) in [
        ("[TOOL_CALL] is fine", true),
        ("[TOOL_CALLS][{\"name\":\"rm\"}]", false),
    ] {
        // One by one, as the tokenizer would see the mark.
        let letters: Vec<u32> = text
            .chars()
            .flat_map(|c| tokenizer.encode(&c.to_string()))
            .collect();
        let mut constraint = constraint();
        let passes = letters.into_iter().all(|token| {
            let allowed = constraint.mask().expect("a mask").allows(token);
            allowed && constraint.accept(token).is_ok()
        });
        assert_eq!(passes, expected, "{text}");
    }
}

#[test]
fn marks_that_are_tokens_stand_for_themselves() {
    let tokenizer = with_marks();
    let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("an end");
    let tools = tools();
    let id = |text: &str| tokenizer.id(text).expect("a token");
    let encode = |text: &str| tokenizer.encode(text);
    for (format, tokens) in [
        (
            ToolFormat::Mistral,
            [
                encode("Hm."),
                vec![id("[TOOL_CALLS]")],
                encode("now"),
                vec![id("[ARGS]")],
                encode("{}"),
            ],
        ),
        (
            ToolFormat::Gemma,
            [
                encode("Hm."),
                vec![id("<start_function_call>")],
                encode("call:now{}"),
                vec![id("<end_function_call>")],
                Vec::new(),
            ],
        ),
    ] {
        let grammar = ToolGrammar::new(format, &tools);
        let mut constraint = grammars.compile_tools(&grammar).expect("it compiles");
        let tokens = tokens.concat();
        for token in &tokens {
            let mask = constraint.mask().expect("a mask");
            assert!(
                mask.allows(*token),
                "{format:?}: {:?}",
                tokenizer.token(*token)
            );
            constraint.accept(*token).expect("it is allowed");
        }
        let (text, stream) = read(&tokenizer, format, &tokens);
        assert_eq!((&*text, stream.error()), ("Hm.", None));
        assert_eq!(stream.calls(), [("now".to_owned(), json!({}))]);
    }
}

#[test]
fn a_schema_that_cannot_be_kept_to_is_named_with_its_tool() {
    let tokenizer = tokenizer("tiny-byte-level.json");
    let grammars = Grammars::new(tokenizer).expect("an end");
    let mut tools = tools();
    tools.push(Tool::new("odd", json!({"type": "object", "not": {}})));
    let error = |tools: &[Tool]| {
        let grammar = ToolGrammar::new(ToolFormat::Json, tools);
        grammars
            .compile_tools(&grammar)
            .expect_err("no grammar")
            .to_string()
    };
    let told = error(&tools);
    assert!(told.starts_with("tools: `odd`: JSON schema: "), "{told}");
    let long = json!({"type": "object", "properties": {"a": {"enum": vec!["a".repeat(4000); 30]}}});
    let many = vec![Tool::new("long", long); 2];
    assert!(error(&many).contains("128 KiB"));
}
