//! Control tokens in messages stay text, whatever a template does with them.

use crate::common::{Expected, tiny_parts};
use proptest::prelude::*;
use tercel_text::{ChatTemplate, Message, TemplateInput, TokenKind, Tokenizer, ToolCall};

const PLAIN: &str = "{% for m in messages %}<|turn|>{{ m.content }}<|end|>{% endfor %}";

fn tokenizer() -> Tokenizer {
    let file = Expected::load("tiny-byte-level.json");
    Tokenizer::from_parts(&tiny_parts(&file)).expect("a sound vocabulary")
}

/// The text of the prompt, and how many control tokens its ids have.
fn render(tokenizer: &Tokenizer, template: &str, contents: &[&str]) -> (String, usize) {
    let messages: Vec<_> = contents
        .iter()
        .map(|content| Message::user(*content))
        .collect();
    let template = ChatTemplate::new(template).expect("a sound template");
    let input = TemplateInput::new(&messages, tokenizer.markers());
    let rendered = template.render(&input).expect("a render");
    let ids = tokenizer.encode_rendered(&rendered);
    let control = ids
        .iter()
        .filter(|id| tokenizer.kind(**id) == TokenKind::Control)
        .count();
    let spelled: String = ids
        .iter()
        .map(|id| match tokenizer.kind(*id) {
            TokenKind::Control => tokenizer
                .token(*id)
                .expect("an id of the vocabulary")
                .to_owned(),
            _ => tokenizer.decode(&[*id]),
        })
        .collect();
    if rendered.text().is_ascii() {
        assert_eq!(spelled, rendered.text());
    }
    (rendered.text().to_owned(), control)
}

#[test]
fn only_the_template_writes_control_tokens() {
    let tokenizer = tokenizer();
    let cases: &[(&str, &str, &[&str], &str, usize)] = &[
        ("plain", PLAIN, &["hi"], "<|turn|>hi<|end|>", 2),
        (
            "named",
            PLAIN,
            &["a<|end|>b"],
            "<|turn|>a<|end|>b<|end|>",
            2,
        ),
        (
            "named alone",
            PLAIN,
            &["<|end|>"],
            "<|turn|><|end|><|end|>",
            2,
        ),
        (
            "half",
            PLAIN,
            &["<|end", "|>"],
            "<|turn|><|end<|end|><|turn|>|><|end|>",
            4,
        ),
        ("at the end", PLAIN, &["<"], "<|turn|><<|end|>", 2),
        (
            "joined",
            "{% for m in messages %}{{ m.content }}{% endfor %}<|end|>",
            &["<|", "end|", ">"],
            "<|end|><|end|>",
            1,
        ),
        (
            "trimmed",
            "{% for m in messages %}{{ m.content | trim }}{% endfor %}<|end|>",
            &["  <|en  ", "\n d|> "],
            "<|end|><|end|>",
            1,
        ),
        (
            "cut out",
            "{{ messages[0].content.replace('</x>', '') }}<|end|>",
            &["<|en</x>d|> <</x>|end|>"],
            "<|end|> <|end|><|end|>",
            1,
        ),
        (
            "split",
            "{{ messages[0].content.split('</x>')[-1] }}<|end|>",
            &["a</x><|end|>"],
            "<|end|><|end|>",
            1,
        ),
        (
            "completed in front",
            "<{{ messages[0].content }}<|end|>",
            &["|end|>"],
            "<|end|><|end|>",
            1,
        ),
        (
            "completed behind",
            "{{ messages[0].content }}end|><|end|>",
            &["<|"],
            "<|end|><|end|>",
            1,
        ),
        (
            "as JSON",
            "{{ messages | tojson }}<|end|>",
            &["<|end|>"],
            "[{\"role\": \"user\", \"content\": \"<|end|>\"}]<|end|>",
            1,
        ),
    ];
    for (name, template, contents, text, control) in cases {
        assert_eq!(
            render(&tokenizer, template, contents),
            ((*text).to_owned(), *control),
            "{name}"
        );
    }
}

#[test]
fn every_string_of_the_input_is_neutral() {
    let tokenizer = tokenizer();
    let source = "{{ tools | tojson }}{{ documents }}{{ note }}\
        {% for m in messages %}{{ m | tojson }}{{ m.name }}{{ m.reasoning_content }}\
        {% for call in m.tool_calls %}{{ call.id ~ call.function.name }}\
        {% for key, value in call.function.arguments | items %}{{ key ~ value }}{% endfor %}\
        {% endfor %}{% endfor %}";
    let template = ChatTemplate::new(source).expect("a sound template");
    let marker = serde_json::json!({ "<|end|>": ["<|turn|>", { "<|turn|>": "<|end|>" }] });
    let call = ToolCall::new("<|end|>", marker.clone()).with_id("<|turn|>");
    let messages = [
        Message::assistant("<|end|>")
            .with_reasoning("<|turn|>")
            .with_tool_call(call),
        Message::tool("<|end|>")
            .with_name("<|turn|>")
            .answering("<|end|>"),
        Message::user("<|end|>").with("<|turn|>", marker.clone()),
    ];
    let lists = [marker];
    let mut input = TemplateInput::new(&messages, tokenizer.markers());
    (input.tools, input.documents) = (&lists, &lists);
    input.extra.insert("note".into(), "<|turn|>".into());
    let rendered = template.render(&input).expect("a render");
    // Each string of the input, in JSON or by itself.
    assert_eq!(rendered.text().matches("<|").count(), 34);
    let ids = tokenizer.encode_rendered(&rendered);
    assert!(
        ids.iter()
            .all(|id| tokenizer.kind(*id) != TokenKind::Control)
    );
    assert_eq!(ids, tokenizer.encode(rendered.text()));
}

proptest! {
    #[test]
    fn no_message_adds_a_control_token(
        contents in prop::collection::vec("(<\\|end\\|>|<\\|turn\\|>|<|\\||end|\\|>|</x>| |\n|x|\u{fdd0}){0,8}", 1..4),
    ) {
        let tokenizer = tokenizer();
        let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
        let (text, control) = render(&tokenizer, PLAIN, &contents);
        let expected: String = contents.iter().map(|c| format!("<|turn|>{c}<|end|>")).collect();
        prop_assert_eq!(text, expected);
        prop_assert_eq!(control, contents.len() * 2);
        let cutting = "{% for m in messages %}{{ m.content.replace('</x>', '').strip() }}{% endfor %}";
        prop_assert_eq!(render(&tokenizer, cutting, &contents).1, 0);
    }

    #[test]
    fn ids_read_back_as_the_text(text in "\\PC{0,40}|[\\x00-\\x7f]{0,60}|(<tool>|<\\|end\\|>| |\u{1f600}|\u{301}){0,9}") {
        let tokenizer = tokenizer();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text.clone());
        prop_assert_eq!(tokenizer.lost_bytes(&text), 0);
    }
}
