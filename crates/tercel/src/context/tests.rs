//! What a model sees of a prompt that is too long, and what the reply says of it.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tercel_text::{Message, Role};

use super::*;
use crate::testing::{END, VOCAB_SIZE, engine};
use crate::{Engine, Error, Reply, Request, TokenId};

/// An engine whose replies end at once, and what its model was last shown.
struct Seen {
    engine: Engine,
    shown: Arc<Mutex<Vec<TokenId>>>,
}

impl Seen {
    fn new(max_context: usize) -> Self {
        let shown: Arc<Mutex<Vec<TokenId>>> = Arc::default();
        let seen = Arc::clone(&shown);
        let (engine, _) = engine(max_context, move |held| {
            *seen.lock().expect("no panic") = held.to_vec();
            let mut row = vec![0.0; VOCAB_SIZE];
            row[END as usize] = 50.0;
            row
        });
        Self { engine, shown }
    }

    /// The prompt that ran, as text, and the reply.
    fn ask(&self, request: Request) -> Result<(String, Reply), Error> {
        let reply = self.engine.generate(request)?;
        let shown = self.shown.lock().expect("no panic");
        let bytes = shown.iter().map(|id| u8::try_from(*id).expect("a byte"));
        let text = String::from_utf8(bytes.collect()).expect("whole characters");
        assert_eq!(text.len(), reply.usage.prompt_tokens);
        Ok((text, reply))
    }
}

fn turns(count: usize) -> Vec<Message> {
    let mut messages = vec![Message::system("rules")];
    for turn in 0..count {
        messages.push(Message::user(format!("question {turn}")));
        messages.push(Message::assistant(format!("answer {turn}")));
    }
    messages.push(Message::user("latest"));
    messages
}

/// What a cut says, in short: the message, how it was cut, and the tokens.
fn short(report: &ContextReport) -> Vec<(Option<usize>, CutKind, usize)> {
    let cuts = report.cuts.iter();
    cuts.map(|cut| (cut.message, cut.what, cut.tokens))
        .collect()
}

use CutKind::{Tokens, Turn};

#[test]
fn by_default_nothing_is_cut_and_the_counts_are_told() {
    let seen = Seen::new(60);
    let error = seen.ask(Request::chat(turns(3))).expect_err("too long");
    assert!(
        matches!(
            error,
            Error::ContextOverflow {
                prompt_tokens: 91,
                max_context: 60
            }
        ),
        "{error}"
    );
    let reserved = Request::chat(turns(1)).reserve_tokens(20);
    let error = seen.ask(reserved.clone()).expect_err("too little is left");
    assert_eq!(error.kind(), "context_overflow");
    assert_eq!(
        error.to_string(),
        "the prompt has 43 tokens and must leave 20 to the reply, the context holds 60"
    );
    let (_, reply) = seen.ask(reserved.reserve_tokens(17)).expect("just enough");
    assert_eq!(reply.context, None);
    for reserve in [60, 1000] {
        let error = seen.ask(Request::prompt("x").reserve_tokens(reserve));
        let message = error.expect_err("no room at all").to_string();
        assert_eq!(
            message,
            format!("`reserve_tokens` is {reserve}, must be 1 to 59")
        );
    }
}

#[test]
fn whole_turns_go_from_the_oldest() {
    let seen = Seen::new(80);
    let request = Request::chat(turns(3)).context_overflow(ContextOverflow::DropOldestTurns);
    let (prompt, reply) = seen
        .ask(request.clone().reserve_tokens(13))
        .expect("it fits");
    assert_eq!(
        prompt,
        "s:rules\nu:question 1\na:answer 1\nu:question 2\na:answer 2\nu:latest\na:"
    );
    let report = reply.context.expect("a report");
    assert_eq!(
        (
            report.prompt_tokens_before,
            report.prompt_tokens_after,
            report.reserve_tokens
        ),
        (91, 67, 13)
    );
    assert_eq!(short(&report), [(Some(1), Turn, 10), (Some(2), Turn, 8)]);
    assert_eq!(report.cuts[1].role, Some(Role::Assistant));
    assert_eq!(
        report.to_string(),
        "the context was full (drop_oldest_turns): 2 messages left out; \
         67 of 91 prompt tokens ran"
    );
    // One token more to the reply, one turn less.
    let (prompt, _) = seen
        .ask(request.clone().reserve_tokens(14))
        .expect("it fits");
    assert_eq!(prompt, "s:rules\nu:question 2\na:answer 2\nu:latest\na:");
    let (prompt, _) = seen
        .ask(request.clone().reserve_tokens(61))
        .expect("it fits");
    assert_eq!(prompt, "s:rules\nu:latest\na:");
    let error = seen
        .ask(request.reserve_tokens(62))
        .expect_err("the base does not fit");
    assert_eq!(
        error.to_string(),
        "the prompt has 19 tokens after `drop_oldest_turns` and must leave 62 to the reply, \
         the context holds 80"
    );
    assert!(error.hint().expect("a hint").contains("sliding_window"));
}

#[test]
fn tools_go_with_their_turn_and_system_messages_stay_wherever_they_are() {
    let seen = Seen::new(40);
    let messages = vec![
        Message::assistant("welcome"),
        Message::user("old"),
        Message::system("new rules"),
        Message::assistant("call"),
        Message::tool("1234567890"),
        Message::user("now"),
        Message::assistant("again"),
        Message::tool("5"),
    ];
    let request = Request::chat(messages)
        .context_overflow(ContextOverflow::DropOldestTurns)
        .reserve_tokens(1);
    let (prompt, reply) = seen.ask(request).expect("it fits");
    assert_eq!(prompt, "s:new rules\nu:now\na:again\nt:5\na:");
    let cut: Vec<_> = reply
        .context
        .expect("a report")
        .cuts
        .iter()
        .map(|c| c.message)
        .collect();
    assert_eq!(cut, [Some(0), Some(1), Some(3), Some(4)]);
}

#[test]
fn a_window_fills_the_room_and_keeps_the_first_tokens() {
    let seen = Seen::new(64);
    let request = Request::chat(turns(3)).context_overflow(ContextOverflow::SlidingWindow);
    let (prompt, reply) = seen.ask(request.reserve_tokens(4)).expect("it fits");
    assert_eq!(
        prompt,
        "s:rules\nu:ques\na:answr 1\nu:question 2\na:answer 2\nu:latest\na:"
    );
    assert_eq!(
        short(&reply.context.expect("a report")),
        [
            (Some(1), Turn, 10),
            (Some(2), Turn, 8),
            (Some(3), Tokens, 6),
            (Some(4), Tokens, 1)
        ]
    );
    // The latest turn alone does not fit: it is cut too.
    let long = vec![Message::system("rules"), Message::user(DIGITS.repeat(10))];
    let request = Request::chat(long).context_overflow(ContextOverflow::SlidingWindow);
    let narrow = request.clone().reserve_tokens(30).keep_first_tokens(2);
    let (prompt, reply) = seen.ask(narrow).expect("it fits");
    assert_eq!(prompt, "s:rules\nu:011234567890123456789\na:");
    let report = reply.context.expect("a report");
    assert_eq!(short(&report), [(Some(1), Tokens, 79)]);
    assert_eq!(
        report.to_string(),
        "the context was full (sliding_window): 1 message shortened; 34 of 113 prompt tokens ran"
    );
    let (prompt, _) = seen
        .ask(request.clone().reserve_tokens(46))
        .expect("it fits");
    assert_eq!(prompt, "s:rules\nu:01239\na:");
    let error = seen
        .ask(request.reserve_tokens(47))
        .expect_err("the system text stays");
    assert!(
        error
            .to_string()
            .contains("18 tokens after `sliding_window`"),
        "{error}"
    );
}

#[test]
fn the_longest_messages_lose_their_middle_down_to_one_length() {
    let seen = Seen::new(104);
    let messages = vec![
        Message::system("rules"),
        Message::user("short"),
        Message::assistant("a".repeat(20) + &"A".repeat(20)),
        Message::user("b".repeat(30) + &"B".repeat(30)),
    ];
    let request = Request::chat(messages).context_overflow(ContextOverflow::TruncateMiddle);
    let (prompt, reply) = seen
        .ask(request.clone().reserve_tokens(10))
        .expect("it fits");
    let cut = |head: &str, tail: &str, n| format!("{}\n[...]\n{}", head.repeat(n), tail.repeat(n));
    let (answer, question) = (cut("a", "A", 14), cut("b", "B", 14));
    assert_eq!(
        prompt,
        format!("s:rules\nu:short\na:{answer}\nu:{question}\na:")
    );
    let report = reply.context.expect("a report");
    assert_eq!(
        (report.prompt_tokens_before, report.prompt_tokens_after),
        (124, 94)
    );
    assert_eq!(
        short(&report),
        [(Some(2), Tokens, 12), (Some(3), Tokens, 32)]
    );
    // What is no longer than its cut form would be stays whole.
    let (prompt, _) = seen
        .ask(request.clone().reserve_tokens(58))
        .expect("it fits");
    assert_eq!(
        prompt,
        "s:rules\nu:short\na:aa\n[...]\nAA\nu:bb\n[...]\nBB\na:"
    );
    let error = seen
        .ask(request.reserve_tokens(63))
        .expect_err("nothing is left to cut");
    assert!(error.to_string().contains("42 tokens after"), "{error}");
}

#[test]
fn prompts_without_turns_are_cut_too() {
    let seen = Seen::new(60);
    let text = DIGITS.repeat(10);
    let ids: Vec<TokenId> = text.bytes().map(TokenId::from).collect();
    for request in [Request::prompt(&text), Request::tokens(ids)] {
        let request = request.reserve_tokens(20);
        let window = request
            .clone()
            .context_overflow(ContextOverflow::SlidingWindow);
        let (prompt, reply) = seen.ask(window).expect("it fits");
        assert_eq!(prompt, "0123".to_owned() + &text[64..]);
        let report = reply.context.expect("a report");
        assert_eq!(short(&report), [(None, Tokens, 60)]);
        assert!(
            report
                .to_string()
                .contains("): the prompt shortened; 40 of 100"),
            "{report}"
        );

        let middle = request
            .clone()
            .context_overflow(ContextOverflow::TruncateMiddle);
        let (prompt, reply) = seen.ask(middle).expect("it fits");
        assert_eq!(prompt, format!("{}\n[...]\n{}", &text[..17], &text[84..]));
        let report = reply.context.expect("a report");
        assert_eq!((report.prompt_tokens_after, short(&report)[0].2), (40, 67));

        // Turns are what only a conversation has.
        let turns = request
            .clone()
            .context_overflow(ContextOverflow::DropOldestTurns);
        let error = seen.ask(turns).expect_err("no turns");
        assert_eq!(error.kind(), "invalid_parameter");
        let narrow = request.reserve_tokens(52);
        let error = seen.ask(narrow.context_overflow(ContextOverflow::TruncateMiddle));
        assert_eq!(
            error.expect_err("no room for a mark").kind(),
            "context_overflow"
        );
    }
}

#[test]
fn the_room_of_the_reply_is_what_it_asks_for_but_at_most_a_quarter() {
    let seen = Seen::new(60);
    let after = |request: Request| {
        let request = request.context_overflow(ContextOverflow::SlidingWindow);
        seen.ask(request).expect("it fits").1.usage.prompt_tokens
    };
    let prompt = |len: usize| Request::prompt("x".repeat(len));
    assert_eq!(after(prompt(45)), 45);
    assert_eq!(after(prompt(46)), 45);
    assert_eq!(after(prompt(58).max_new_tokens(3)), 57);
    assert_eq!(after(prompt(58).reserve_tokens(30)), 30);
}

#[test]
fn no_character_is_cut_in_two() {
    // Two, three and four bytes.
    for letter in ["\u{e9}", "\u{20ac}", "\u{1f985}"] {
        let text = letter.repeat(40);
        for room in 28..52 {
            let seen = Seen::new(room + 1);
            for policy in [
                ContextOverflow::SlidingWindow,
                ContextOverflow::TruncateMiddle,
            ] {
                // `ask` fails where the prompt is no UTF-8 text.
                let ask = |request: Request| {
                    let request = request.context_overflow(policy).reserve_tokens(1);
                    seen.ask(request).expect("it fits").0
                };
                let raw = ask(Request::prompt(&text));
                let chat = ask(Request::chat(vec![Message::user(&text)]));
                for prompt in [raw, chat] {
                    assert!(
                        prompt.len() <= room && prompt.len() + 8 > room,
                        "{prompt:?} {room}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_chat_keeps_its_whole_history_and_says_what_each_reply_did_not_see() {
    let seen = Seen::new(40);
    let mut chat = seen
        .engine
        .chat()
        .system("s")
        .context_overflow(ContextOverflow::DropOldestTurns)
        .max_new_tokens(4);
    let mut cut = Vec::new();
    for turn in 0..5 {
        let reply = chat.ask(format!("number {turn}")).expect("it fits");
        cut.push(reply.context.map_or(0, |report| report.cuts.len()));
    }
    // Each turn before takes 14 tokens of the 36, the rest of the prompt 17.
    assert_eq!(cut, [0, 0, 2, 4, 6]);
    assert_eq!(chat.history().len(), 11);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_is_cut_fits_and_is_reported(
        texts in prop::collection::vec(("[a-c\u{e9}\n ]{1,40}", 0..4_u8), 1..12),
        last in "[a-c]{1,60}",
        max_context in 12..120_usize,
        reserve in 1..11_usize,
        keep_first in 0..9_usize,
    ) {
        let role = |kind| match kind {
            0 => Role::System,
            1 => Role::Tool,
            2 => Role::Assistant,
            _ => Role::User,
        };
        let messages = texts.iter().map(|(text, kind)| Message::new(role(*kind), text));
        let messages: Vec<Message> = messages.chain([Message::user(&last)]).collect();
        let whole: usize = messages.iter().map(|m| m.content.len() + 3).sum::<usize>() + 2;
        let system = messages.iter().filter(|m| m.role == Role::System);
        let system: usize = system.map(|m| m.content.len() + 3).sum();
        let room = max_context - reserve;
        let seen = Seen::new(max_context);
        for policy in [
            ContextOverflow::DropOldestTurns,
            ContextOverflow::SlidingWindow,
            ContextOverflow::TruncateMiddle,
        ] {
            let request = Request::chat(messages.clone())
                .context_overflow(policy)
                .reserve_tokens(reserve)
                .keep_first_tokens(keep_first);
            let (prompt, reply) = match seen.ask(request) {
                Ok(answer) => answer,
                Err(Error::ContextReserve { prompt_tokens, .. }) => {
                    prop_assert!(prompt_tokens > room && prompt_tokens <= whole);
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            prop_assert!(prompt.len() <= room);
            for message in messages.iter().filter(|m| m.role == Role::System) {
                let kept = prompt.contains(&format!("s:{}\n", message.content));
                prop_assert!(kept, "a system text went");
            }
            let Some(report) = reply.context else {
                prop_assert_eq!(prompt.len(), whole);
                continue;
            };
            prop_assert!(whole > room && !report.cuts.is_empty());
            prop_assert_eq!(report.prompt_tokens_before, whole);
            prop_assert_eq!(report.prompt_tokens_after, prompt.len());
            let went = |cut: &Cut| {
                let message = &messages[cut.message.expect("an index")];
                assert_eq!(Some(message.role), cut.role);
                let marks = match (cut.what, policy) {
                    (Turn, _) => 3_isize,
                    (Tokens, ContextOverflow::TruncateMiddle) => -7,
                    (Tokens, _) => 0,
                };
                isize::try_from(cut.tokens).expect("small") + marks
            };
            let went: isize = report.cuts.iter().map(went).sum();
            prop_assert_eq!(whole - prompt.len(), usize::try_from(went).expect("less"));
            if policy == ContextOverflow::DropOldestTurns {
                let kept = prompt.ends_with(&format!("u:{last}\na:"));
                prop_assert!(kept, "the latest message went");
                // The newest turn that went would not have fitted.
                let back = report.cuts.iter().rev();
                let mut turn = 0;
                for cut in back {
                    turn += cut.tokens + 3;
                    if cut.role == Some(Role::User) {
                        break;
                    }
                }
                prop_assert!(prompt.len() + turn > room || system == whole);
            }
        }
    }
}

const DIGITS: &str = "0123456789";
