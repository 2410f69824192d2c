//! Thoughts: found in templates, told apart from answers, however the text is cut.

#![expect(clippy::expect_used, reason = "a test says what it expects")]

use proptest::prelude::*;
use tercel_text::{
    ChatTemplate, Markers, Message, PromptEnd, ReplyStream, TemplateInput, ThinkTags,
};

const STOP: &str = "STOP";

fn tags() -> ThinkTags {
    ThinkTags::find(None, |_| true).expect("known marks")
}

/// The thought, the answer, and whether it was stopped.
fn run(prompt: PromptEnd, pieces: &[&[u8]]) -> (String, String, bool) {
    let mut stream = ReplyStream::new(Some(tags()), prompt, &[STOP.to_owned()]);
    let (mut thought, mut text) = (String::new(), String::new());
    for piece in pieces {
        let out = stream.push_bytes(piece);
        thought.push_str(&out.thought);
        text.push_str(&out.text);
        if out.stopped.is_some() {
            return (thought, text, true);
        }
    }
    let out = stream.finish();
    (thought + &out.thought, text + &out.text, false)
}

#[test]
fn marks_are_those_of_the_template_else_of_the_vocabulary() {
    let find = |template, tokens: &[&str]| {
        ThinkTags::find(template, |text| tokens.contains(&text)).map(|tags| tags.open())
    };
    let splits = "{{ content.split('[/THINK]')[-1] }}";
    for (template, tokens, open) in [
        (None, &[][..], None),
        (Some("{{ x }}"), &["<think>"][..], None),
        (Some("{{ x }}"), &["<think>", "</think>"], Some("<think>")),
        (None, &["[THINK]", "[/THINK]"], Some("[THINK]")),
        (Some(splits), &["<think>", "</think>"], Some("[THINK]")),
        (Some("<think>"), &[], None),
        (Some("</seed:think>"), &[], Some("<seed:think>")),
    ] {
        assert_eq!(find(template, tokens), open, "{template:?} {tokens:?}");
    }
}

#[test]
fn the_end_of_a_prompt_says_whether_a_thought_is_open() {
    let end = |source: &str, content: &str, markers: &Markers| {
        let messages = [Message::user(content)];
        let template = ChatTemplate::new(source).expect("a sound template");
        let input = TemplateInput::new(&messages, markers);
        tags().end_of(&template.render(&input).expect("a render"))
    };
    let markers = Markers::new(["<think>", "</think>"]);
    for (source, content, expected) in [
        ("{{ messages[0].content }}A:", "<think>", PromptEnd::Plain),
        ("A:<think>{{ '\n' }}", "", PromptEnd::Open),
        ("A:<think>", "", PromptEnd::Open),
        ("A:<think>\n\n</think>{{ '\n\n' }}", "", PromptEnd::Closed),
        ("<think>A", "", PromptEnd::Plain),
        ("{{ messages[0].content }}", "<think>", PromptEnd::Plain),
        ("{{ messages[0].content }}", "</think>\n", PromptEnd::Plain),
    ] {
        assert_eq!(end(source, content, &markers), expected, "{source:?}");
    }
}

#[test]
fn thoughts_are_told_from_answers() {
    use PromptEnd::{Closed, Open, Plain};
    for (prompt, reply, thought, answer) in [
        (Plain, "hello", "", "hello"),
        (Plain, "", "", ""),
        (Plain, " \n hello", "", " \n hello"),
        (
            Plain,
            "<think>\nhm\n\nso\n</think>\n\nyes\n",
            "hm\n\nso",
            "yes\n",
        ),
        (Plain, "\n<think>x</think>y", "x", "y"),
        (Plain, "<think>\n\n</think>\n\nyes", "", "yes"),
        (Plain, "<thin king>", "", "<thin king>"),
        (Plain, "<thin", "", "<thin"),
        (Plain, " \n", "", " \n"),
        (Plain, "a <think>b</think> c", "", "a <think>b</think> c"),
        (Plain, "<think>cut off\n", "cut off", ""),
        (Plain, "<think>cut </thi", "cut </thi", ""),
        (Plain, "<think>a < b </ c </think>d", "a < b </ c ", "d"),
        (Plain, "<think>a</think>b</think>c", "a", "b</think>c"),
        (Plain, "<think>a</think>\n\n", "a", ""),
        (Open, "\nhm\n</think>\nyes", "hm", "yes"),
        (Open, "no end", "no end", ""),
        (
            Open,
            "h\u{e9}\u{1f600}</think>\u{e9}",
            "h\u{e9}\u{1f600}",
            "\u{e9}",
        ),
        (Closed, "<think>x</think>", "", "<think>x</think>"),
        (Closed, "\nx", "", "\nx"),
    ] {
        let expected = (thought.to_owned(), answer.to_owned(), false);
        assert_eq!(run(prompt, &[reply.as_bytes()]), expected, "{reply:?}");
        let bytes: Vec<&[u8]> = reply.as_bytes().chunks(1).collect();
        assert_eq!(run(prompt, &bytes), expected, "{reply:?} in bytes");
    }
}

#[test]
fn stop_strings_end_the_answer_alone() {
    let stopped = run(PromptEnd::Plain, &[b"<think>STOP</think>\nab", b"STOPc"]);
    assert_eq!(stopped, ("STOP".to_owned(), "ab".to_owned(), true));
    // Not across the mark.
    let whole = run(PromptEnd::Plain, &[b"<think>ST</think>OPa"]);
    assert_eq!(whole, ("ST".to_owned(), "OPa".to_owned(), false));
    let plain = run(PromptEnd::Plain, &[b"<thSTOPink>"]);
    assert_eq!(plain, (String::new(), "<th".to_owned(), true));
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        reply in "(<think>|</think>|</th|\n|STOP|ST|x|\u{e9}|<| ){0,12}",
        cuts in prop::collection::vec(0_usize..80, 0..8),
        open in any::<bool>(),
    ) {
        let prompt = if open { PromptEnd::Open } else { PromptEnd::Plain };
        let bytes = reply.as_bytes();
        let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(run(prompt, &pieces), run(prompt, &[bytes]));
    }
}
