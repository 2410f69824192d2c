//! What a conversation remembers.

use tercel_text::Role;

use crate::testing::{chaotic, engine};
use crate::{Event, Message, StopReason};

use super::*;

fn roles(chat: &Chat) -> Vec<Role> {
    chat.history().iter().map(|message| message.role).collect()
}

#[test]
fn turns_are_remembered_and_only_what_is_new_is_computed() {
    let (engine, steps) = engine(400, chaotic);
    let mut chat = engine.chat().system("Be brief.").max_new_tokens(10).seed(1);
    let first = chat.ask("one").expect("a reply");
    assert_eq!(first.usage.cached_tokens, 0);
    assert_eq!(roles(&chat), [Role::System, Role::User, Role::Assistant]);
    assert_eq!(chat.history()[2].content, first.text);

    steps.lock().expect("no panic").clear();
    let second = chat.ask("two").expect("a reply");
    // Everything up to the reply's last token, which was never put into the context.
    assert_eq!(second.usage.cached_tokens, first.usage.prompt_tokens + 9);
    let computed: usize = steps.lock().expect("no panic").iter().sum();
    assert_eq!(
        computed,
        second.usage.prompt_tokens - second.usage.cached_tokens + 9
    );

    // The same conversation from its history, by a cold engine.
    let (cold, _) = crate::testing::engine(400, chaotic);
    let past = chat.history()[..3].to_vec();
    let mut again = cold.chat().with_history(past).max_new_tokens(10).seed(1);
    assert_eq!(again.ask("two").expect("a reply").tokens, second.tokens);
    assert_eq!(again.history(), chat.history());
}

#[test]
fn the_system_message_stays_first_and_survives_a_reset() {
    let (engine, _) = engine(400, chaotic);
    let mut chat = engine.chat().max_new_tokens(3);
    chat.ask("one").expect("a reply");
    chat.set_system(Some("first".into()));
    chat.set_system(Some("second".into()));
    assert_eq!(roles(&chat), [Role::System, Role::User, Role::Assistant]);
    chat.reset();
    assert_eq!(chat.history(), [Message::system("second")]);
    chat.set_system(None);
    assert!(chat.history().is_empty());
    chat.reset();
    assert!(chat.history().is_empty());
}

#[test]
fn a_turn_that_fails_leaves_the_history_as_it_was() {
    let (engine, _) = engine(60, chaotic);
    let mut chat = engine.chat().system("s").max_new_tokens(3);
    chat.ask("one").expect("a reply");
    let before = chat.history().to_vec();
    let long = "x".repeat(100);
    let cases = [
        ("", "empty_prompt"),
        (" ", "empty_prompt"),
        (long.as_str(), "context_overflow"),
    ];
    for (text, kind) in cases {
        assert_eq!(chat.ask(text).expect_err("an error").kind(), kind);
        assert_eq!(chat.stream(text).expect_err("an error").kind(), kind);
        assert_eq!(chat.history(), before);
    }
    chat.set_sampling(Sampling {
        top_p: Some(7.0),
        ..Sampling::default()
    });
    assert_eq!(
        chat.ask("two").expect_err("an error").kind(),
        "invalid_parameter"
    );
    assert_eq!(chat.history(), before);
}

#[test]
fn a_streamed_reply_enters_the_history_at_its_end() {
    let (engine, _) = engine(400, chaotic);
    let mut chat = engine.chat().max_new_tokens(10);
    let reply = chat
        .stream("one")
        .expect("accepted")
        .wait()
        .expect("a reply");
    assert_eq!(
        chat.history(),
        [Message::user("one"), Message::assistant(reply.text)]
    );
}

#[test]
fn a_dropped_stream_leaves_what_was_read() {
    let (engine, _) = engine(4000, chaotic);
    let mut chat = engine.chat().max_new_tokens(3000);
    let mut said = String::new();
    for event in chat.stream("one").expect("accepted").take(4) {
        match event.expect("no error") {
            Event::Delta { text, .. } => said.push_str(&text),
            other => panic!("not a delta: {other:?}"),
        }
    }
    assert_eq!(
        chat.history(),
        [Message::user("one"), Message::assistant(said)]
    );

    // Nothing was read: the turn did not take place.
    let before = chat.history().to_vec();
    drop(chat.stream("two").expect("accepted"));
    assert_eq!(chat.history(), before);
}

#[test]
fn a_cancelled_stream_reports_its_part_and_the_next_turn_goes_on_from_it() {
    let (engine, _) = engine(4000, chaotic);
    let mut chat = engine.chat().max_new_tokens(3000);
    let mut stream = chat.stream("one").expect("accepted");
    stream.next().expect("an event").expect("no error");
    let cancel = stream.cancel_handle();
    std::thread::spawn(move || cancel.cancel())
        .join()
        .expect("no panic");
    let reply = stream.wait().expect("a reply");
    assert_eq!(reply.stop_reason, StopReason::Cancelled);
    assert!(!reply.text.is_empty());
    assert_eq!(
        chat.history(),
        [Message::user("one"), Message::assistant(reply.text)]
    );

    chat.set_sampling(Sampling {
        max_new_tokens: Some(5),
        ..Sampling::default()
    });
    let next = chat.ask("two").expect("a reply");
    assert!(next.usage.cached_tokens > 4);
    assert_eq!(
        roles(&chat),
        [Role::User, Role::Assistant, Role::User, Role::Assistant]
    );
}

#[test]
fn turns_are_counted_taken_back_and_said_anew() {
    let (engine, _) = engine(400, chaotic);
    let mut chat = engine.chat().system("s").max_new_tokens(5).seed(1);
    assert_eq!(chat.turns(), 0);
    assert_eq!(
        chat.regenerate().expect_err("nothing to say").kind(),
        "empty_messages"
    );
    for text in ["one", "two", "three"] {
        chat.ask(text).expect("a reply");
    }
    let whole = chat.history().to_vec();
    assert_eq!(chat.turns(), 3);
    chat.rewind(0).expect("nothing to do");
    assert_eq!(chat.history(), whole);
    let error = chat.rewind(4).expect_err("there are three");
    assert_eq!(
        error.to_string(),
        "the conversation has no turn 3, it has 3 (numbered from 0)"
    );
    assert_eq!(error.kind(), "no_such_turn");
    assert_eq!(
        chat.edit(3, "x").expect_err("no such turn").kind(),
        "no_such_turn"
    );
    assert_eq!(
        chat.edit(0, " ").expect_err("no text").kind(),
        "empty_prompt"
    );
    assert_eq!(chat.history(), whole);

    let mut back = chat.fork();
    back.rewind(2).expect("two turns");
    assert_eq!(back.history(), &whole[..3]);
    back.rewind(1).expect("the first");
    assert_eq!(back.history(), [Message::system("s")]);

    // The same words lead to the same reply, others to another; what came after is gone.
    let mut again = chat.fork();
    again.edit(1, "two").expect("a turn");
    assert_eq!(again.history(), &whole[..4]);
    again.regenerate().expect("a reply");
    assert_eq!(again.history(), &whole[..5]);
    again.edit(1, "2").expect("a turn");
    let reply = again
        .regenerate_stream()
        .expect("accepted")
        .wait()
        .expect("a reply");
    assert_eq!(
        again.history()[3..],
        [Message::user("2"), Message::assistant(&reply.text)]
    );
    assert_ne!(reply.text, whole[4].content);
    assert_eq!(chat.history(), whole, "a fork is a copy");
}

#[test]
fn a_reply_that_fails_leaves_the_one_before() {
    let (engine, _) = engine(400, chaotic);
    let mut chat = engine.chat().max_new_tokens(5);
    chat.ask("one").expect("a reply");
    let before = chat.history().to_vec();
    drop(chat.regenerate_stream().expect("accepted"));
    assert_eq!(chat.history(), before);
    chat.set_sampling(Sampling {
        top_p: Some(7.0),
        ..Sampling::default()
    });
    assert_eq!(
        chat.regenerate().expect_err("an error").kind(),
        "invalid_parameter"
    );
    assert!(chat.regenerate_stream().is_err());
    assert_eq!(chat.history(), before);
    // An edited turn waits for its reply all the same.
    chat.edit(0, "two").expect("a turn");
    assert!(chat.regenerate().is_err());
    assert_eq!(chat.history(), [Message::user("two")]);
}
