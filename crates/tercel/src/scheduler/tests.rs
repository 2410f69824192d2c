//! The engine's behaviour through its public face, around models made of closures.

use std::thread;
use std::time::Duration;

use crate::reply::Usage;
use crate::testing::{
    MAX_SEQUENCES, QUEUE, VOCAB_SIZE, chaotic, engine, engine_that_guesses, engine_with_chunks,
    engine_with_draft, says,
};
use crate::{Activity, Engine, Error, Event, Reply, Request, StopReason, TokenId};

use super::*;
use crate::score::log_probability;

/// Reads a stream to its end: the deltas, and the reply.
fn read(stream: crate::Stream) -> (Vec<(String, usize)>, Reply) {
    let mut deltas = Vec::new();
    for event in stream {
        match event.expect("no error") {
            Event::Delta { text, token_index } => deltas.push((text, token_index)),
            Event::Done(reply) => return (deltas, reply),
            other => panic!("{other:?}, which was not asked for"),
        }
    }
    panic!("the stream ended without a reply");
}

fn prompt(len: usize) -> Request {
    Request::prompt("p".repeat(len)).temperature(0.0)
}

/// A chaotic model that takes its time.
fn slow(step: Duration) -> impl FnMut(&[TokenId]) -> Vec<f32> {
    move |held| {
        thread::sleep(step);
        chaotic(held)
    }
}

#[test]
fn a_reply_ends_for_the_right_reason_with_the_right_text() {
    type Change = fn(Request) -> Request;
    let cases: [(&str, Change, StopReason, &str, usize); 7] = [
        ("eos", |r| r, StopReason::Eos, "one two three", 14),
        (
            "stop",
            |r| r.stop("two"),
            StopReason::StopSequence,
            "one ",
            7,
        ),
        (
            "first of two stops",
            |r| r.stop("three").stop("e t"),
            StopReason::StopSequence,
            "on",
            5,
        ),
        (
            "a stop that only begins",
            |r| r.stop("three!"),
            StopReason::Eos,
            "one two three",
            14,
        ),
        (
            "limit",
            |r| r.max_new_tokens(5),
            StopReason::MaxNewTokens,
            "one t",
            5,
        ),
        (
            "limit in a stop",
            |r| r.max_new_tokens(6).stop("two"),
            StopReason::MaxNewTokens,
            "one tw",
            6,
        ),
        (
            "end ignored",
            |r| r.ignore_eos(true).max_new_tokens(20),
            StopReason::MaxNewTokens,
            "one two three",
            20,
        ),
    ];
    for (name, change, reason, text, generated) in cases {
        let (engine, _) = engine(100, says(9, "one two three"));
        let (deltas, reply) = read(engine.stream(change(prompt(9))).expect("accepted"));
        assert_eq!(
            (reply.stop_reason, reply.text.as_str()),
            (reason, text),
            "{name}"
        );
        assert_eq!(
            deltas.iter().map(|d| d.0.as_str()).collect::<String>(),
            text,
            "{name}"
        );
        assert!(
            deltas.iter().all(|d| !d.0.is_empty() && d.1 < generated),
            "{name}"
        );
        assert_eq!(reply.usage.generated_tokens, generated, "{name}");
        assert_eq!(reply.tokens.len(), generated, "{name}");
        assert_eq!(reply.usage.prompt_tokens, 9, "{name}");
        let stopped = reason == StopReason::StopSequence;
        assert_eq!(reply.stop_sequence.is_some(), stopped, "{name}");
        // The same without streaming.
        let whole = engine.generate(change(prompt(9))).expect("a reply");
        assert_eq!(
            (whole.text, whole.tokens),
            (reply.text, reply.tokens),
            "{name}"
        );
    }
}

#[test]
fn the_stop_string_that_matched_is_named() {
    let (engine, _) = engine(100, says(3, "one two three"));
    let reply = engine
        .generate(prompt(3).stop("three").stop("two"))
        .expect("a reply");
    assert_eq!(reply.stop_sequence.as_deref(), Some("two"));
}

#[test]
fn a_reply_that_fills_the_context_says_so_and_a_prompt_that_does_is_refused() {
    let (engine, steps) = engine(20, chaotic);
    let reply = engine.generate(prompt(15)).expect("a reply");
    assert_eq!(
        (reply.stop_reason, reply.tokens.len()),
        (StopReason::ContextFull, 5)
    );
    let reply = engine.generate(prompt(19)).expect("a reply");
    assert_eq!(
        (reply.stop_reason, reply.tokens.len()),
        (StopReason::ContextFull, 1)
    );

    steps.lock().expect("no panic").clear();
    let error = engine.generate(prompt(20)).expect_err("too long");
    assert!(matches!(
        error,
        Error::ContextOverflow {
            prompt_tokens: 20,
            max_context: 20
        }
    ));
    assert_eq!(error.kind(), "context_overflow");
    assert!(error.to_string().contains("20 tokens"), "{error}");
    assert!(steps.lock().expect("no panic").is_empty(), "nothing ran");
}

#[test]
fn bad_requests_are_refused_before_anything_runs() {
    let (engine, steps) = engine(20, chaotic);
    let cases = [
        (Request::prompt(""), "empty_prompt"),
        (Request::tokens(Vec::new()), "empty_prompt"),
        (Request::chat(Vec::new()), "empty_messages"),
        (
            Request::chat(vec![crate::Message::user(" \n")]),
            "empty_prompt",
        ),
        (
            Request::tokens(vec![1, VOCAB_SIZE as TokenId]),
            "invalid_parameter",
        ),
        (Request::prompt("x").temperature(3.0), "invalid_parameter"),
        (Request::prompt("x").stop(""), "invalid_parameter"),
    ];
    for (request, kind) in cases {
        let error = engine.generate(request.clone()).expect_err("refused");
        assert_eq!(error.kind(), kind, "{request:?}");
        assert_eq!(engine.stream(request).expect_err("refused").kind(), kind);
    }
    assert!(steps.lock().expect("no panic").is_empty(), "nothing ran");
}

#[test]
fn characters_are_never_split() {
    let (engine, _) = engine(100, says(2, "h\u{e9} \u{1f600}\u{65e5}"));
    let (deltas, reply) = read(engine.stream(prompt(2)).expect("accepted"));
    assert_eq!(reply.text, "h\u{e9} \u{1f600}\u{65e5}");
    let texts: Vec<&str> = deltas.iter().map(|d| d.0.as_str()).collect();
    assert_eq!(texts, ["h", "\u{e9}", " ", "\u{1f600}", "\u{65e5}"]);
    // The emoji's four bytes are tokens 4 to 7.
    assert_eq!(deltas[3].1, 7);
    let cut = engine
        .generate(prompt(2).max_new_tokens(6))
        .expect("a reply");
    assert_eq!(cut.text, "h\u{e9} \u{fffd}");
}

#[test]
fn a_seed_gives_one_text_whatever_the_chunks_and_what_was_held() {
    let request = |seed| {
        Request::prompt("the prompt of this test")
            .seed(seed)
            .temperature(1.5)
            .max_new_tokens(40)
    };
    let mut texts = Vec::new();
    for chunk in [1, 3, 7, 64] {
        let (engine, _) = engine_with_chunks(100, chunk, chaotic);
        let cold = engine.generate(request(5)).expect("a reply");
        assert_eq!(cold.usage.cached_tokens, 0);
        let warm = engine.generate(request(5)).expect("a reply");
        assert_eq!(warm.usage.cached_tokens, 22);
        engine
            .generate(Request::prompt("the problem"))
            .expect("a reply");
        let partly = engine.generate(request(5)).expect("a reply");
        assert_eq!(partly.usage.cached_tokens, "the pro".len());
        texts.extend([cold.text, warm.text, partly.text]);
        assert_ne!(engine.generate(request(6)).expect("a reply").text, texts[0]);
    }
    assert!(
        texts
            .iter()
            .all(|text| *text == texts[0] && text.len() == 40)
    );
}

#[test]
fn a_drawn_seed_is_reported_and_replays() {
    let (engine, _) = engine(100, chaotic);
    let request = || {
        Request::prompt("abc")
            .temperature(2.0)
            .top_p(1.0)
            .max_new_tokens(30)
    };
    let first = engine.generate(request()).expect("a reply");
    let second = engine.generate(request()).expect("a reply");
    assert_ne!(first.tokens, second.tokens);
    let replay = engine
        .generate(request().seed(first.settings.seed))
        .expect("a reply");
    assert_eq!(replay.tokens, first.tokens);
    assert_eq!(replay.settings, first.settings);
}

#[test]
fn a_prompt_is_prefilled_in_chunks_and_only_what_is_new() {
    let (engine, steps) = engine(100, chaotic);
    let take = || std::mem::take(&mut *steps.lock().expect("no panic"));
    engine
        .generate(prompt(10).max_new_tokens(3))
        .expect("a reply");
    assert_eq!(take(), [4, 4, 2, 1, 1]);
    engine
        .generate(prompt(11).max_new_tokens(1))
        .expect("a reply");
    assert_eq!(take(), [1]);
}

#[test]
fn a_cancelled_stream_ends_within_a_token_and_keeps_what_was_said() {
    let (engine, _) = engine(10_000, slow(Duration::from_millis(1)));
    let mut stream = engine
        .stream(prompt(2).max_new_tokens(5_000))
        .expect("accepted");
    let mut said = String::new();
    for event in stream.by_ref().take(5) {
        if let Event::Delta { text, .. } = event.expect("no error") {
            said.push_str(&text);
        }
    }
    stream.cancel();
    let mut end = None;
    for event in stream {
        match event.expect("no error") {
            Event::Delta { text, .. } => said.push_str(&text),
            Event::Done(reply) => end = Some(reply),
            other => panic!("{other:?}, which was not asked for"),
        }
    }
    let reply = end.expect("a reply");
    assert_eq!(reply.stop_reason, StopReason::Cancelled);
    assert_eq!(reply.text, said);
    assert!(reply.tokens.len() < 200, "{} tokens", reply.tokens.len());
}

#[test]
fn a_cancelled_prefill_ends_within_a_chunk() {
    let (engine, steps) = engine(10_000, slow(Duration::from_millis(1)));
    let stream = engine.stream(prompt(4_000)).expect("accepted");
    thread::sleep(Duration::from_millis(50));
    stream.cancel();
    let (_, reply) = read(stream);
    assert_eq!(reply.stop_reason, StopReason::Cancelled);
    assert_eq!((reply.text.as_str(), reply.usage.generated_tokens), ("", 0));
    assert!(
        steps.lock().expect("no panic").len() < 500,
        "far from all 1000 chunks"
    );
}

#[test]
fn a_dropped_stream_frees_the_engine() {
    let (engine, _) = engine(10_000, slow(Duration::from_micros(200)));
    for read_before in [0, 1, 3] {
        let mut stream = engine
            .stream(prompt(2).max_new_tokens(9_000))
            .expect("accepted");
        for _ in 0..read_before {
            stream.next().expect("an event").expect("no error");
        }
        drop(stream);
    }
    let start = Instant::now();
    engine
        .generate(prompt(2).max_new_tokens(1))
        .expect("a reply");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn dropping_the_engine_ends_what_runs_and_what_waits() {
    let (engine, _) = engine(100_000, chaotic);
    let running = engine
        .stream(prompt(2).max_new_tokens(90_000))
        .expect("accepted");
    let others = (1..MAX_SEQUENCES).map(|_| {
        let mut stream = engine
            .stream(prompt(2).max_new_tokens(90_000))
            .expect("accepted");
        stream.next().expect("an event").expect("no error");
        stream
    });
    let others: Vec<_> = others.collect();
    let waiting = engine.stream(prompt(2)).expect("accepted");
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    drop(engine);
    drop(others);
    assert!(start.elapsed() < Duration::from_secs(1));
    let (deltas, reply) = read(running);
    assert_eq!(reply.stop_reason, StopReason::Cancelled);
    assert_eq!(
        deltas.iter().map(|d| d.0.as_str()).collect::<String>(),
        reply.text
    );
    let (_, reply) = read(waiting);
    assert_eq!(
        (reply.stop_reason, reply.tokens.len()),
        (StopReason::Cancelled, 0)
    );
}

#[test]
fn dropping_the_engine_ends_a_prefill() {
    let (engine, _) = engine(10_000, slow(Duration::from_millis(1)));
    let stream = engine.stream(prompt(5_000)).expect("accepted");
    thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    drop(engine);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(read(stream).1.stop_reason, StopReason::Cancelled);
}

#[test]
fn a_panic_reaches_every_waiter_and_the_engine_says_what_it_was() {
    let (engine, _) = engine(100, |held: &[TokenId]| {
        assert!(held.len() < 8, "a fault on purpose");
        thread::sleep(Duration::from_millis(10));
        chaotic(held)
    });
    let running = engine.stream(prompt(2)).expect("accepted");
    let waiting = engine.stream(prompt(2)).expect("accepted");
    for stream in [running, waiting] {
        assert_eq!(stream.wait().expect_err("an error").kind(), "internal");
    }
    // The thread has gone, or is about to.
    let error = engine.generate(prompt(2)).expect_err("an error");
    assert_eq!(error.kind(), "internal");
    thread::sleep(Duration::from_millis(50));
    let error = engine.score(&[1, 2, 3], 0).expect_err("an error");
    assert!(error.to_string().contains("a fault on purpose"), "{error}");
}

#[test]
fn logits_that_are_not_numbers_end_the_request_and_not_the_engine() {
    let (engine, _) = engine(100, |held: &[TokenId]| {
        if held.len() == 6 {
            vec![f32::NAN; VOCAB_SIZE]
        } else {
            chaotic(held)
        }
    });
    for _ in 0..2 {
        let error = engine.generate(prompt(2)).expect_err("an error");
        assert!(
            matches!(error, Error::InvalidLogits { tokens: 6 }),
            "{error}"
        );
    }
    assert_eq!(
        engine.score(&[1; 10], 0).expect_err("an error").kind(),
        "invalid_logits"
    );
    engine
        .generate(prompt(7).max_new_tokens(5))
        .expect("a reply");
}

/// Streams that take every place of the engine and never end by themselves.
fn fill(engine: &Engine) -> Vec<crate::Stream> {
    let started = |stream: &mut crate::Stream| stream.next().expect("an event").expect("no error");
    let busy = (0..MAX_SEQUENCES).map(|_| {
        let mut stream = engine
            .stream(prompt(2).max_new_tokens(9_000))
            .expect("accepted");
        started(&mut stream);
        stream
    });
    busy.collect()
}

#[test]
fn a_full_queue_is_an_error_and_order_is_kept() {
    let (engine, _) = engine(10_000, slow(Duration::from_micros(200)));
    let mut busy = fill(&engine);
    let waiting: Vec<_> = (0..QUEUE)
        .map(|_| {
            engine
                .stream(prompt(2).max_new_tokens(1))
                .expect("accepted")
        })
        .collect();
    assert_eq!(engine.waiting(), QUEUE);
    for refused in [
        engine.stream(prompt(2)).map(|_| ()),
        engine.generate(prompt(2)).map(|_| ()),
    ] {
        let error = refused.expect_err("full");
        assert!(
            matches!(error, Error::QueueFull { capacity: QUEUE }),
            "{error}"
        );
    }
    // Cancelled while it waits: over at once.
    waiting[2].cancel();
    busy.truncate(MAX_SEQUENCES - 1);
    let mut last = 0.0;
    for (i, stream) in waiting.into_iter().enumerate() {
        let reply = stream.wait().expect("a reply");
        let expected = if i == 2 {
            StopReason::Cancelled
        } else {
            StopReason::MaxNewTokens
        };
        assert_eq!(reply.stop_reason, expected);
        if i != 2 {
            assert!(reply.timings.queue_seconds >= last - 0.05);
            last = reply.timings.queue_seconds;
        }
    }
}

#[test]
fn activity_is_told_while_a_pass_runs_and_is_none_once_a_request_has_ended() {
    let pass = Duration::from_millis(400);
    let (engine, _) = engine(10_000, move |held| {
        if held.len() > 100 {
            thread::sleep(pass);
        }
        chaotic(held)
    });
    let request = || prompt(2).max_new_tokens(3);
    let idle = engine.activity();
    assert_eq!(idle, Activity::default());
    let busy = fill(&engine);
    let waiting = engine.stream(request()).expect("accepted");
    let activity = engine.activity();
    assert_eq!((activity.running, activity.waiting), (MAX_SEQUENCES, 1));
    assert_eq!(activity.kv.sequences, MAX_SEQUENCES);
    drop(busy);
    waiting.wait().expect("a reply");
    let until_idle = || {
        let started = Instant::now();
        while engine.activity() != idle {
            assert!(started.elapsed() < pass, "{:?}", engine.activity());
        }
    };
    until_idle();
    // Whoever has read the end finds the request gone.
    engine.generate(request()).expect("a reply");
    assert_eq!(engine.activity(), idle);
    engine.score(&[1, 2, 3], 0).expect("scores");
    assert_eq!(engine.activity(), idle);
    engine.embed(&[1, 2, 3], Pooling::Mean).expect("a vector");
    assert_eq!(engine.activity(), idle);
    // Requests whose readers leave are gone at once.
    for read_before in [0, 1] {
        let mut stream = engine.stream(prompt(2)).expect("accepted");
        stream.by_ref().take(read_before).for_each(drop);
        drop(stream);
        until_idle();
    }

    // A pass that goes on for long is not waited for.
    let long = engine.stream(prompt(99)).expect("accepted");
    thread::sleep(pass / 2);
    let asked = Instant::now();
    assert_eq!(engine.activity().running, 1);
    assert!(asked.elapsed() < pass / 4);
    drop(long);
}

#[test]
fn the_most_urgent_of_those_that_wait_goes_first() {
    let (engine, _) = engine(10_000, slow(Duration::from_micros(200)));
    let mut busy = fill(&engine);
    let urgent = [0, 2, -1, 2].map(|priority| {
        engine
            .stream(prompt(2).max_new_tokens(20).priority(priority))
            .expect("accepted")
    });
    busy.truncate(MAX_SEQUENCES - 1);
    let waited = urgent.map(|stream| stream.wait().expect("a reply").timings.queue_seconds);
    assert!(waited[1] < waited[3], "{waited:?}");
    assert!(waited[3] < waited[0], "{waited:?}");
    assert!(waited[0] < waited[2], "{waited:?}");
}

#[test]
fn a_crowd_changes_no_reply() {
    let request = |i: usize| {
        Request::prompt(
            "the beginning that they share, and then ".repeat(1 + i % 3) + &"x".repeat(i),
        )
        .seed(i as u64)
        .temperature(if i.is_multiple_of(3) { 0.0 } else { 1.5 })
        .max_new_tokens(20 + 3 * i)
    };
    let (alone, _) = engine(400, chaotic);
    let want: Vec<_> = (0..24)
        .map(|i| alone.generate(request(i)).expect("a reply").tokens)
        .collect();
    let (engine, _) = engine(400, chaotic);
    for round in 0..6 {
        let streams = (0..4).map(|i| {
            let i = round * 4 + i;
            (i, engine.stream(request(i)).expect("accepted"))
        });
        for (i, stream) in streams.collect::<Vec<_>>() {
            let reply = stream.wait().expect("a reply");
            assert_eq!(reply.tokens, want[i], "request {i}");
        }
    }
}

#[test]
fn a_reader_that_lags_stops_nobody_else() {
    let (engine, _) = engine(10_000, chaotic);
    let lagging = engine
        .stream(prompt(2).max_new_tokens(5_000))
        .expect("accepted");
    let start = Instant::now();
    let reply = engine
        .generate(prompt(3).max_new_tokens(2_000))
        .expect("a reply");
    assert_eq!(reply.usage.generated_tokens, 2_000);
    assert!(start.elapsed() < Duration::from_secs(20));
    let (deltas, reply) = read(lagging);
    assert_eq!(reply.usage.generated_tokens, 5_000);
    let text: String = deltas.into_iter().map(|delta| delta.0).collect();
    assert_eq!(text, reply.text);
}

#[test]
fn a_long_prompt_does_not_stop_replies() {
    let (engine, steps) = engine(10_000, slow(Duration::from_micros(50)));
    let mut busy = engine
        .stream(prompt(2).max_new_tokens(9_000))
        .expect("accepted");
    busy.next().expect("an event").expect("no error");
    let long = engine
        .stream(prompt(2_000).max_new_tokens(1))
        .expect("accepted");
    let mut tokens = 0;
    let start = Instant::now();
    while !engine
        .kv_usage()
        .is_ok_and(|_| start.elapsed() > Duration::from_millis(100))
    {
        busy.next().expect("an event").expect("no error");
        tokens += 1;
    }
    assert!(tokens > 10, "{tokens} tokens");
    assert_eq!(
        long.wait().expect("a reply").stop_reason,
        StopReason::MaxNewTokens
    );
    let largest = steps.lock().expect("no panic").iter().copied().max();
    assert!(largest <= Some(5), "a chunk of 4 and a token");
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is() {
    let soon = Duration::from_millis(60);
    let (engine, _) = engine(10_000, slow(Duration::from_millis(1)));
    let timed = |request: Request| {
        let start = Instant::now();
        let reply = engine.generate(request).expect("a reply");
        assert_eq!(reply.stop_reason, StopReason::Timeout);
        assert!(start.elapsed() >= soon, "{:?}", start.elapsed());
        assert!(start.elapsed() < 20 * soon, "{:?}", start.elapsed());
        reply
    };
    let reply = timed(prompt(2).max_new_tokens(9_000).deadline(soon));
    assert!(!reply.text.is_empty(), "what there is is kept");
    assert_eq!(reply.text.len(), reply.tokens.len());
    let reply = timed(prompt(4_000).deadline(soon));
    assert!(reply.tokens.is_empty(), "in the prompt");
    let reply = timed(prompt(4_000).token_timeout(soon));
    assert!(reply.tokens.is_empty(), "before the first token");
    let busy = fill(&engine);
    let reply = timed(prompt(2).deadline(soon));
    assert!(reply.tokens.is_empty(), "in the queue");
    assert!(reply.timings.queue_seconds >= 0.06);
    drop(busy);
    engine
        .generate(
            prompt(2)
                .max_new_tokens(1)
                .deadline(Duration::from_secs(60)),
        )
        .expect("a reply");
}

#[test]
fn guesses_change_no_reply_and_save_passes() {
    // After a letter comes the next one of the alphabet, mostly.
    let model = |held: &[TokenId]| {
        // A pass costs much, a token little, or no guess would pay.
        thread::sleep(Duration::from_micros(200));
        let mut row = chaotic(held);
        let next = 97 + (held.last().copied().unwrap_or(0) + 1 + 26 - 97 % 26) % 26;
        if !held.len().is_multiple_of(37) {
            row[next as usize] = 90.0;
        }
        row
    };
    for temperature in [0.0, 1.0] {
        let request = || {
            Request::prompt("abcdefghijklmnopqrstuvwxyz abcdefghijkl")
                .seed(3)
                .temperature(temperature)
                .max_new_tokens(300)
        };
        let (plain, plain_steps) = engine(1000, model);
        let want = plain.generate(request()).expect("a reply");
        assert_eq!(want.usage.drafted_tokens, 0);
        let (engine, steps) = engine_that_guesses(1000, model);
        let reply = engine.generate(request()).expect("a reply");
        assert_eq!(reply.tokens, want.tokens);
        assert!(reply.usage.accepted_draft_tokens > 0, "{:?}", reply.usage);
        assert!(reply.usage.accepted_draft_tokens <= reply.usage.drafted_tokens);
        let passes = |steps: &crate::testing::Steps| steps.lock().expect("no panic").len();
        assert_eq!(
            passes(&steps) + reply.usage.accepted_draft_tokens,
            passes(&plain_steps)
        );
        let off = engine
            .generate(request().speculation(false))
            .expect("a reply");
        assert_eq!((off.usage.drafted_tokens, off.tokens), (0, want.tokens));
    }
}

#[test]
fn a_draft_model_that_agrees_is_always_right() {
    for temperature in [0.0, 1.0] {
        let request = || {
            Request::prompt("abcdefghijklmnopqrstuvwxyz")
                .seed(5)
                .temperature(temperature)
                .max_new_tokens(300)
        };
        let want = engine(1000, chaotic).0.generate(request());
        let want = want.expect("a reply").tokens;
        let agrees = engine_with_draft(1000, chaotic, chaotic);
        let reply = agrees.generate(request()).expect("a reply");
        assert_eq!(reply.tokens, want);
        let Usage {
            drafted_tokens,
            accepted_draft_tokens,
            ..
        } = reply.usage;
        // A text of letters has a few pairs twice, which are wrong guesses.
        assert!(drafted_tokens > 100, "{drafted_tokens}");
        assert!(
            accepted_draft_tokens * 10 > drafted_tokens * 8,
            "{accepted_draft_tokens} of {drafted_tokens}"
        );
        let nonsense = engine_with_draft(1000, chaotic, |held| chaotic(&[1, held.len() as u32]));
        let reply = nonsense.generate(request()).expect("a reply");
        assert_eq!(reply.tokens, want);
        // What is never right is soon left alone.
        assert!(reply.usage.drafted_tokens < 250, "{:?}", reply.usage);
        let broken = engine_with_draft(1000, chaotic, |held| vec![f32::NAN; chaotic(held).len()]);
        assert_eq!(broken.generate(request()).expect("a reply").tokens, want);
    }
}

#[test]
fn another_template_is_another_prompt() {
    let (engine, _) = engine(1000, chaotic);
    let request = || Request::chat(vec![crate::Message::user("hello")]).max_new_tokens(2);
    engine.generate(request()).expect("a reply");
    let again = engine.generate(request()).expect("a reply");
    assert!(again.usage.cached_tokens > 0);
    assert_eq!(again.usage.cache_miss, None);
    let source = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:{# 2 #}";
    let other = engine
        .generate(request().template(source))
        .expect("a reply");
    assert_eq!(other.usage.cached_tokens, 0);
    assert!(other.usage.cache_miss.is_some());
    let error = engine
        .generate(request().template("{% if %}"))
        .expect_err("no template");
    assert_eq!(error.kind(), "invalid_template");
}

#[test]
fn scores_are_the_models_log_probabilities() {
    let tokens: Vec<TokenId> = "some text that is scored"
        .bytes()
        .map(TokenId::from)
        .collect();
    let expected: Vec<f64> = (1..tokens.len())
        .map(|n| log_probability(&chaotic(&tokens[..n]), tokens[n]).expect("finite"))
        .collect();
    let (engine, steps) = engine_with_chunks(tokens.len(), 5, chaotic);
    assert_eq!(engine.score(&tokens, 0).expect("scores"), expected);
    for from in [1, 7, 22] {
        assert_eq!(
            engine.score(&tokens, from).expect("scores"),
            expected[from..],
            "from {from}"
        );
    }
    assert_eq!(
        engine
            .score_text("some text that is scored")
            .expect("scores"),
        expected
    );

    steps.lock().expect("no panic").clear();
    assert_eq!(
        engine.score(&tokens, 23).expect_err("no pair").kind(),
        "invalid_parameter"
    );
    assert_eq!(
        engine.score(&[1], 0).expect_err("no pair").kind(),
        "invalid_parameter"
    );
    assert_eq!(
        engine.score(&[], 0).expect_err("nothing").kind(),
        "empty_prompt"
    );
    let longer: Vec<TokenId> = tokens.iter().copied().chain([1]).collect();
    assert_eq!(
        engine.score(&longer, 0).expect_err("too long").kind(),
        "context_overflow"
    );
    assert!(steps.lock().expect("no panic").is_empty(), "nothing ran");
}

#[test]
fn timings_add_up() {
    let (engine, _) = engine(1000, slow(Duration::from_millis(2)));
    let reply = engine
        .generate(prompt(9).max_new_tokens(10))
        .expect("a reply");
    let timings = reply.timings;
    let parts = timings.queue_seconds + timings.prefill_seconds + timings.decode_seconds;
    assert!(parts <= timings.total_seconds);
    assert!(timings.time_to_first_token >= timings.prefill_seconds);
    assert!(timings.prefill_seconds >= 0.018 && timings.decode_seconds >= 0.018);
    let rate = 9.0 / timings.decode_seconds;
    assert!((timings.tokens_per_second() - rate).abs() < 1e-9);
    assert!(timings.prefill_tokens_per_second() <= 500.0);
}

#[test]
fn engines_can_be_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let (engine, _) = engine(100, chaotic);
    shared(&engine);
    let expected = engine
        .generate(prompt(3).max_new_tokens(20))
        .expect("a reply")
        .tokens;
    let replies: Vec<_> = (0..8)
        .map(|_| {
            let engine: Engine = engine.clone();
            thread::spawn(move || engine.generate(prompt(3).max_new_tokens(20)))
        })
        .collect();
    drop(engine);
    for reply in replies {
        assert_eq!(
            reply.join().expect("no panic").expect("a reply").tokens,
            expected
        );
    }
}
