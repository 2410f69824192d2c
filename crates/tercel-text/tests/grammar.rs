//! Which texts a constraint lets through, token by token, with small vocabularies.

mod common;

use std::sync::Arc;

use serde_json::{Value, json};
use tercel_text::Tokenizer;
use tercel_text::grammar::{Grammar, GrammarError, Grammars};

use common::{goes_through, tokenizer};

fn byte_level() -> (Arc<Tokenizer>, Grammars) {
    let tokenizer = tokenizer("tiny-byte-level.json");
    let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("an end");
    (tokenizer, grammars)
}

#[test]
fn texts_go_through_or_do_not() {
    let person = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let list =
        "root ::= list\nlist ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= [0-9]{1,3} | list";
    let spaced = "root ::= \"{\" ws \"}\" | \"\\u00e9\" root\nws ::= [ \\n]*";
    let cases: Vec<(Grammar, &[&str], &[&str])> = vec![
        (
            Grammar::JsonSchema(person),
            &[
                r#"{"name":"Ada","age":36}"#,
                r#"{"name": "Ada", "age": 0}"#,
                "{\n  \"name\": \"Ada\",\n  \"age\": 150\n}",
            ],
            &[
                "",
                r#"{"name":"Ada"}"#,
                r#"{"name":"Ada","age":151}"#,
                r#"{"name":"Ada","age":1.5}"#,
                r#"{"name":"Ada","age":36,"x":1}"#,
                r#"{"name":"Ada","age":36} "#,
                r#" {"name":"Ada","age":36}"#,
                r#"{"name":"Ada Lovelace","age":36}"#,
                r#"{     "name":"Ada","age":36}"#,
            ],
        ),
        (
            Grammar::Json,
            &["{}", "{\"a\": [1, null, {\"b\": \"\u{e9}\\n\"}]}"],
            &["[]", "1", "{", r#"{"a":}"#, r#"{a: 1}"#],
        ),
        (
            Grammar::Regex(r"(yes|no)( [0-9]{2})?".into()),
            &["yes", "no 42"],
            &["", "y", "yes ", "no 4", "maybe", "yesno"],
        ),
        (
            Grammar::of(
                "start: greeting \" \" NAME\ngreeting: \"hi\" | \"hello\"\nNAME: /[A-Z][a-z]+/",
            ),
            &["hi Bob", "hello Ada"],
            &["hi", "hi bob", "hey Bob"],
        ),
        (
            Grammar::of(list),
            &["[]", "[1,23,[456]]", "[[[]]]"],
            &["", "[", "[1,]", "[1234]", "1"],
        ),
        (
            Grammar::of(spaced),
            &["{}", "{ \n }", "\u{e9}{}", "\u{e9}\u{e9}{ }"],
            &["{", "{x}", "e{}", "\u{e9}"],
        ),
        (
            Grammar::of("root ::= [a-z]* \"x\" \"y\"{0} .?"),
            &["x", "abcx", "xx", "x!"],
            &["", "abc", "xy!z"],
        ),
    ];
    for name in ["tiny-byte-level.json", "tiny-sentencepiece.json"] {
        let tokenizer = tokenizer(name);
        let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("an end");
        for (grammar, good, bad) in &cases {
            let goes = |text: &str| {
                let constraint = grammars.compile(grammar).expect("a grammar");
                goes_through(&tokenizer, constraint, text)
            };
            for text in *good {
                assert!(goes(text), "{name}: {grammar:?} refuses {text:?}");
            }
            for text in *bad {
                assert!(!goes(text), "{name}: {grammar:?} takes {text:?}");
            }
        }
    }
}

#[test]
fn what_must_come_is_told_at_once() {
    let (tokenizer, grammars) = byte_level();
    let schema = json!({
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": false,
    });
    let options = "start: \"{\\\"answer\\\": \\\"\" (\"yes\" | \"no\") \"\\\"}\"";
    for (grammar, begins) in [
        (Grammar::JsonSchema(schema), "{"),
        (Grammar::Lark(options.into()), "{\"answer\": \""),
    ] {
        let mut constraint = grammars.compile(&grammar).expect("a grammar");
        let forced = constraint.forced().expect("tokens");
        let text = tokenizer.decode(&forced);
        assert!(!text.is_empty() && begins.starts_with(&text), "{text:?}");
        for token in forced {
            constraint.accept(token).expect("it must come");
        }
        assert_eq!(constraint.is_over(), Ok(false));
    }
}

#[test]
fn a_text_that_is_complete_is_over() {
    let (tokenizer, grammars) = byte_level();
    let mut constraint = grammars
        .compile(&Grammar::Regex("ab".into()))
        .expect("a pattern");
    for token in tokenizer.encode("ab") {
        assert_eq!(constraint.is_over(), Ok(false));
        constraint.accept(token).expect("it is allowed");
    }
    assert_eq!(constraint.is_over(), Ok(true));
    let mask = constraint.mask().expect("the end");
    assert!(mask.allows(tokenizer.end_ids()[0]));
    let mut logits = vec![0.0; tokenizer.vocab_size()];
    mask.apply(&mut logits);
    let left = logits.iter().filter(|logit| logit.is_finite()).count();
    assert_eq!(left, tokenizer.end_ids().len());
}

#[test]
fn a_token_that_may_not_come_is_an_error() {
    let (tokenizer, grammars) = byte_level();
    let mut constraint = grammars
        .compile(&Grammar::Regex("ab".into()))
        .expect("a pattern");
    let other = tokenizer.encode("x")[0];
    assert!(matches!(
        constraint.accept(other),
        Err(GrammarError::Stuck { .. })
    ));
}

#[test]
fn control_tokens_are_no_text() {
    let (tokenizer, grammars) = byte_level();
    let mut constraint = grammars
        .compile(&Grammar::Regex("(?s:.*)".into()))
        .expect("a pattern");
    let mask = constraint.mask().expect("a mask");
    for id in 0..tokenizer.vocab_size() as u32 {
        if tokenizer.kind(id) == tercel_text::TokenKind::Control {
            assert_eq!(
                mask.allows(id),
                tokenizer.is_end(id),
                "{:?}",
                tokenizer.token(id)
            );
        }
    }
}

#[test]
fn what_cannot_be_kept_to_is_refused() {
    let (_, grammars) = byte_level();
    let refused = |grammar: &Grammar| {
        let error = grammars.compile(grammar).expect_err("refused");
        error.to_string()
    };
    let schema = |value: Value| Grammar::JsonSchema(value);
    for (grammar, part) in [
        (schema(json!({"not": {"type": "string"}})), "not"),
        (
            schema(json!({"type": "array", "uniqueItems": true})),
            "uniqueItems",
        ),
        (schema(json!({"type": "strange"})), "strange"),
        (schema(json!({"$ref": "#/$defs/none"})), "none"),
        (
            schema(json!({"$ref": "https://example.com/a.json"})),
            "example.com",
        ),
        (schema(json!({"type": "string", "pattern": "*a"})), "repe"),
        (Grammar::Regex("*a".into()), "repe"),
        (Grammar::Regex("(a".into()), "unclosed"),
        (Grammar::of("begin: \"a\""), "start"),
        (Grammar::of("start: other"), "other"),
        (Grammar::of("root ::= other"), "other"),
        // Of what calls for itself without an end no text can begin.
        (schema(json!({"$ref": "#"})), "no text"),
        (Grammar::of("start: start \"a\""), "no text"),
        (Grammar::of("root ::= root"), "no text"),
    ] {
        let error = refused(&grammar);
        assert!(error.starts_with(grammar.kind()), "{error}");
        assert!(error.contains(part), "{grammar:?}: {error}");
        assert!(!error.contains('\n') && error.len() < 500, "{error}");
    }
}

#[test]
fn what_is_too_much_is_refused_in_time() {
    let (_, grammars) = byte_level();
    let nested =
        |open: &str, close: &str| format!("{}a{}", open.repeat(60_000), close.repeat(60_000));
    let chain = |define: &dyn Fn(usize) -> String| (0..20_000).map(define).collect::<String>();
    let wide = json!({"enum": (0..200_000).map(|i| format!("value {i}")).collect::<Vec<_>>()});
    let mut definitions = serde_json::Map::new();
    for i in 0..4_000 {
        definitions.insert(
            format!("d{i}"),
            json!({"allOf": [{"$ref": format!("#/$defs/d{}", i + 1)}]}),
        );
    }
    definitions.insert("d4000".into(), json!({"type": "string"}));
    let started = std::time::Instant::now();
    for grammar in [
        Grammar::Regex(nested("(", ")")),
        Grammar::Regex("((a{1000}){1000}){1000}".into()),
        Grammar::of(format!("start: {}", nested("(", ")"))),
        Grammar::of(format!("root ::= {}", nested("(", ")"))),
        Grammar::of(format!(
            "root ::= r0\n{}r20000 ::= \"a\"",
            chain(&|i| format!("r{i} ::= r{}\n", i + 1))
        )),
        Grammar::of(format!(
            "start: R0\n{}R20000: \"a\"",
            chain(&|i| format!("R{i}: R{}\n", i + 1))
        )),
        Grammar::of(format!(
            "start: r0\n{}r20000: \"a\"",
            chain(&|i| format!("r{i}: r{}\n", i + 1))
        )),
        Grammar::of(format!("start: {}", "a{".repeat(60_000))),
        Grammar::JsonSchema(json!({"description": "a".repeat(10 << 20)})),
        Grammar::JsonSchema(wide),
        Grammar::JsonSchema(json!({"$ref": "#/$defs/d0", "$defs": definitions})),
    ] {
        // Whatever of it can be kept to may be; it must come to an end.
        drop(grammars.compile(&grammar));
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
