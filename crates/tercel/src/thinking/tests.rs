//! Thoughts through the public face, around models made of closures.

use serde_json::json;

use crate::testing::{chaotic, engine_with_template, says};
use crate::{Chat, Engine, Error, Event, Message, Reply, Request, StopReason};

use super::*;

/// A template that marks thoughts and does not ask whether there is to be one.
const MARKS: &str = "{% for m in messages %}{{ m.content.split('</think>')[-1] }};{% endfor %}a:";
/// One that asks, and else begins the thought itself.
const ASKS: &str = "{% for m in messages %}{{ m.content }};{% endfor %}a:\
    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n\
    {% else %}<think>\n{% endif %}";
/// One that knows nothing of thoughts.
const PLAIN: &str = "{% for m in messages %}{{ m.content }};{% endfor %}a:";

fn question() -> Request {
    Request::chat(vec![Message::user("q")]).temperature(0.0)
}

/// The texts of the two kinds of events, and the reply.
fn read(engine: &Engine, request: Request) -> (String, String, Reply) {
    let (mut thought, mut text) = (String::new(), String::new());
    for event in engine.stream(request).expect("accepted") {
        match event.expect("no error") {
            Event::Thinking { text: more, .. } => {
                assert!(
                    text.is_empty() && !more.is_empty(),
                    "the thought comes first"
                );
                thought.push_str(&more);
            }
            Event::Delta { text: more, .. } => text.push_str(&more),
            Event::Done(reply) => return (thought, text, reply),
            other => panic!("{other:?}, which was not asked for"),
        }
    }
    panic!("the stream ended without a reply");
}

#[test]
fn thought_and_answer_are_apart_and_only_the_answer_is_stopped() {
    let prompt = "q;a:".len();
    let said = "<think>\nlet me stop\n</think>\n\nthe answer, stop it";
    let (engine, _) = engine_with_template(MARKS, 200, 4, says(prompt, said));
    assert_eq!(engine.think_tags().map(|tags| tags.open()), Some("<think>"));
    let (thought, text, reply) = read(&engine, question().stop("stop"));
    assert_eq!(
        (thought.as_str(), text.as_str()),
        ("let me stop", "the answer, ")
    );
    assert_eq!(reply.thinking.as_deref(), Some("let me stop"));
    assert_eq!(reply.text, "the answer, ");
    assert_eq!(reply.stop_reason, StopReason::StopSequence);
    let block = "<think>\nlet me stop\n</think>".len();
    assert_eq!(reply.usage.thinking_tokens, block);
    assert_eq!(reply.usage.generated_tokens, said.len() - " it".len());

    // Without a template, or without marks, all is text.
    let raw = engine
        .generate(Request::prompt("q;a:").temperature(0.0))
        .expect("a reply");
    assert_eq!((raw.text.as_str(), raw.thinking), (said, None));
    let (engine, _) = engine_with_template(PLAIN, 200, 4, says(prompt, said));
    let plain = engine.generate(question()).expect("a reply");
    assert_eq!((plain.text.as_str(), plain.thinking), (said, None));
    assert_eq!(plain.usage.thinking_tokens, 0);
}

#[test]
fn a_prompt_says_whether_to_think() {
    let opened = "q;a:<think>\n";
    let emptied = "q;a:<think>\n\n</think>\n\n";
    for (template, thinking, prompt, thinks) in [
        (MARKS, Thinking::Auto, "q;a:", false),
        (MARKS, Thinking::Off, emptied, false),
        (MARKS, Thinking::On, opened, true),
        (ASKS, Thinking::Auto, opened, true),
        (ASKS, Thinking::Off, emptied, false),
        (ASKS, Thinking::On, opened, true),
        (PLAIN, Thinking::Auto, "q;a:", false),
        (PLAIN, Thinking::Off, "q;a:", false),
    ] {
        let (engine, _) =
            engine_with_template(template, 200, 4, says(prompt.len(), "so</think>it"));
        let (thought, text, reply) = read(&engine, question().thinking(thinking));
        let shown = format!("{thinking} {template}");
        assert_eq!(reply.usage.prompt_tokens, prompt.len(), "{shown}");
        assert_eq!(reply.settings.thinking, thinking, "{shown}");
        let expected = if thinks {
            ("so", "it")
        } else {
            ("", "so</think>it")
        };
        assert_eq!((thought.as_str(), text.as_str()), expected, "{shown}");
        assert_eq!(
            reply.usage.thinking_tokens,
            if thinks { 10 } else { 0 },
            "{shown}"
        );
    }
    let (engine, steps) = engine_with_template(PLAIN, 200, 4, chaotic);
    let error = engine
        .generate(question().thinking(Thinking::On))
        .expect_err("it cannot");
    assert!(matches!(error, Error::NoThinking), "{error}");
    assert!(steps.lock().expect("no panic").is_empty(), "nothing ran");
}

#[test]
fn a_thought_ends_at_its_budget_and_the_answer_follows() {
    let closing = "\n</think>\n\n";
    for (most, prompt_chunk) in [(1, 1), (5, 4), (12, 64)] {
        let (engine, _) = engine_with_template(ASKS, 400, prompt_chunk, chaotic);
        let request = || question().seed(3).temperature(1.0).max_new_tokens(40);
        let free = engine.generate(request()).expect("a reply");
        assert_eq!(free.text, "", "it never ends its thought by itself");
        assert_eq!(free.thinking.as_ref().map(String::len), Some(40));

        let limited = || request().max_thinking_tokens(most);
        let (thought, text, reply) = read(&engine, limited());
        assert_eq!(
            thought,
            free.thinking.as_deref().expect("a thought")[..most]
        );
        assert_eq!(text.len(), 40 - most - closing.len());
        assert_eq!(reply.usage.generated_tokens, 40);
        let marks = closing.trim_end().len();
        assert_eq!(reply.usage.thinking_tokens, most + marks);
        let forced: Vec<u8> = reply.tokens[most..most + closing.len()]
            .iter()
            .filter_map(|&token| u8::try_from(token).ok())
            .collect();
        assert_eq!(forced, closing.as_bytes());
        // Once more, warm; and its answer is what the model says to the whole of it.
        assert_eq!(
            engine.generate(limited()).expect("a reply").tokens,
            reply.tokens
        );
        let (cold, _) = engine_with_template(ASKS, 400, 7, chaotic);
        assert_eq!(
            cold.generate(limited()).expect("a reply").tokens,
            reply.tokens
        );
    }
}

#[test]
fn a_thought_leaves_room_for_the_answer() {
    let (engine, _) = engine_with_template(ASKS, 400, 4, chaotic);
    let request = |max_new: usize, least| {
        let request = question().max_new_tokens(max_new).min_answer_tokens(least);
        read(&engine, request)
    };
    let (thought, text, reply) = request(40, 10);
    assert_eq!(
        (thought.len(), text.len()),
        (40 - 10 - "\n</think>\n\n".len(), 10)
    );
    assert_eq!(reply.stop_reason, StopReason::MaxNewTokens);
    // Where no answer fits, the thought goes on.
    let (thought, text, _) = request(11, 10);
    assert_eq!((thought.len(), text.as_str()), (11, ""));
    let (thought, text, _) = request(13, 10);
    assert_eq!((thought.len(), text.len()), (1, 1));
}

#[test]
fn a_thought_that_is_closed_in_time_is_not_closed_again() {
    let prompt = "q;a:<think>\n".len();
    let (engine, _) = engine_with_template(ASKS, 200, 4, says(prompt, "ab</think>done"));
    for most in [10, 11, 12] {
        let (thought, text, _) = read(&engine, question().max_thinking_tokens(most));
        assert_eq!((thought.as_str(), text.as_str()), ("ab", "done"), "{most}");
    }
}

#[test]
fn what_concerns_thoughts_is_refused_without_a_conversation() {
    let (engine, _) = engine_with_template(ASKS, 200, 4, chaotic);
    let prompt = || Request::prompt("x").max_new_tokens(1);
    engine
        .generate(prompt().thinking(Thinking::Auto))
        .expect("nothing is asked");
    for (request, field) in [
        (prompt().thinking(Thinking::Off), "`thinking` is off"),
        (
            prompt().max_thinking_tokens(7),
            "`max_thinking_tokens` is 7",
        ),
        (prompt().min_answer_tokens(0), "`min_answer_tokens` is 0"),
        (
            Request::tokens(vec![1]).thinking(Thinking::On),
            "`thinking` is on",
        ),
    ] {
        let error = engine.generate(request).expect_err("refused");
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn a_chat_remembers_thoughts_apart_from_answers() {
    let prompt = "q;a:".len();
    let said = "<think>\nhm\n</think>\n\nyes";
    let (engine, _) = engine_with_template(MARKS, 200, 4, says(prompt, said));
    let expected = [
        Message::user("q"),
        Message::assistant("yes").with_reasoning("hm"),
    ];
    let chat = || engine.chat().temperature(0.0);
    let mut asked = chat();
    asked.ask("q").expect("a reply");
    assert_eq!(asked.history(), expected);
    let mut streamed = chat();
    streamed
        .stream("q")
        .expect("accepted")
        .wait()
        .expect("a reply");
    assert_eq!(streamed.history(), expected);

    // Dropped in the thought there was no answer; dropped later there is the thought too.
    let left = |events: usize| {
        let mut chat: Chat = chat();
        chat.stream("q")
            .expect("accepted")
            .take(events)
            .for_each(drop);
        chat.history().to_vec()
    };
    assert_eq!(left(1), []);
    assert_eq!(
        left(3),
        [
            Message::user("q"),
            Message::assistant("y").with_reasoning("hm")
        ]
    );
}

#[test]
fn names_are_those_of_flags_and_json() {
    for mode in [Thinking::Auto, Thinking::Off, Thinking::On] {
        assert_eq!(
            serde_json::to_value(mode).expect("JSON"),
            json!(mode.name())
        );
        assert_eq!(mode.to_string().parse::<Thinking>().expect("a mode"), mode);
    }
    let error = "maybe".parse::<Thinking>().expect_err("no mode");
    assert_eq!(
        error.to_string(),
        "`thinking` is maybe, must be auto, off or on"
    );
}
