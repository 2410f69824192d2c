//! Log-probabilities through the public face, around models made of closures.

use crate::logprobs::MAX_TOP;
use crate::score::log_probability;
use crate::testing::{
    END, VOCAB_SIZE, chaotic, engine, engine_that_guesses, engine_with_draft, engine_with_template,
    says,
};
use crate::{Engine, Event, Message, Reply, Request, StopReason, TokenId, TokenLogprob};

/// What a stream said: the reply, and its log-probabilities in the order they came, each checked to
/// come before what it completes.
fn read(engine: &Engine, request: Request) -> (Reply, Vec<TokenLogprob>) {
    let mut said = Vec::new();
    for event in engine.stream(request).expect("accepted") {
        match event.expect("no error") {
            Event::Logprobs {
                logprobs,
                first_token_index,
            } => {
                assert_eq!(first_token_index, said.len());
                assert!(!logprobs.is_empty());
                said.extend(logprobs);
            }
            Event::Delta { token_index, .. } | Event::Thinking { token_index, .. } => {
                assert_eq!(token_index + 1, said.len(), "its tokens have come");
            }
            Event::Done(reply) => {
                assert_eq!(reply.tokens.len(), said.len());
                return (reply, said);
            }
            event => panic!("{event:?}"),
        }
    }
    panic!("the stream ended without a reply");
}

/// The definition: a row for each token of the reply, ranked with a full sort.
fn check(reply: &Reply, prompt: &[TokenId], top: usize, row: impl Fn(&[TokenId]) -> Vec<f32>) {
    assert_eq!(reply.logprobs.len(), reply.tokens.len());
    let mut held = prompt.to_vec();
    for (of, &token) in reply.logprobs.iter().zip(&reply.tokens) {
        let logits = row(&held);
        let value = |token| log_probability(&logits, token).expect("finite") as f32;
        let mut ranked: Vec<TokenId> = (0..VOCAB_SIZE as TokenId).collect();
        ranked.sort_by(|a, b| {
            let (a, b) = (*a as usize, *b as usize);
            logits[b].total_cmp(&logits[a]).then(a.cmp(&b))
        });
        assert_eq!((of.token, of.logprob), (token, value(token)));
        let want: Vec<_> = ranked[..top].iter().map(|&id| (id, value(id))).collect();
        let got: Vec<_> = of.top.iter().map(|it| (it.token, it.logprob)).collect();
        assert_eq!(got, want);
        let bytes = |token| match u8::try_from(token) {
            Ok(byte) => vec![byte],
            Err(_) => Vec::new(),
        };
        assert_eq!(of.bytes, bytes(token));
        assert!(of.top.iter().all(|it| it.bytes == bytes(it.token)));
        held.push(token);
    }
}

#[test]
fn they_are_those_of_the_models_own_distribution_streamed_or_not() {
    let prompt: Vec<TokenId> = b"prompt".map(TokenId::from).to_vec();
    let (engine, _) = engine(300, chaotic);
    for top in [0, 1, 5, MAX_TOP] {
        // What changes the draw changes nothing of them.
        let requests = [
            Request::tokens(prompt.clone()).temperature(0.0),
            Request::tokens(prompt.clone()).seed(4).temperature(2.0),
            Request::tokens(prompt.clone())
                .seed(5)
                .repetition_penalty(1.7)
                .frequency_penalty(1.5)
                .logit_bias(vec![(200, 26.0)]),
        ];
        for request in requests {
            let request = request.max_new_tokens(30).logprobs(top);
            let reply = engine.generate(request.clone()).expect("a reply");
            check(&reply, &prompt, top, chaotic);
            let (streamed, said) = read(&engine, request);
            assert_eq!(streamed.logprobs, reply.logprobs);
            assert_eq!(said, reply.logprobs);
        }
    }
}

#[test]
fn guesses_change_none_of_them() {
    let repeats = |held: &[TokenId]| {
        let mut row = chaotic(held);
        // Likely, but not certain: some guesses are wrong.
        row[b"abc"[held.len() % 3] as usize] += 4.0;
        row
    };
    let prompt: Vec<TokenId> = b"abcabcabc".map(TokenId::from).to_vec();
    let request = || {
        Request::tokens(prompt.clone())
            .seed(9)
            .temperature(0.7)
            .max_new_tokens(150)
            .logprobs(3)
    };
    let (plain, _) = engine(300, repeats);
    let want = plain.generate(request()).expect("a reply");
    check(&want, &prompt, 3, repeats);
    let slow = move |held: &[TokenId]| {
        std::thread::sleep(std::time::Duration::from_micros(50));
        repeats(held)
    };
    for guessing in [
        engine_that_guesses(300, slow).0,
        engine_with_draft(300, repeats, repeats),
    ] {
        for _ in 0..3 {
            let (reply, said) = read(&guessing, request());
            assert_eq!(reply.tokens, want.tokens);
            assert_eq!((&reply.logprobs, &said), (&want.logprobs, &want.logprobs));
        }
    }
    let (reply, _) = read(&engine_with_draft(300, repeats, repeats), request());
    assert!(reply.usage.accepted_draft_tokens > 0, "{:?}", reply.usage);
}

#[test]
fn every_token_has_one_however_the_reply_ends() {
    let said = "one two three";
    let cases: [(Request, StopReason); 3] = [
        (Request::prompt("pp"), StopReason::Eos),
        (Request::prompt("pp").stop("two"), StopReason::StopSequence),
        (
            Request::prompt("pp").max_new_tokens(5),
            StopReason::MaxNewTokens,
        ),
    ];
    for (request, reason) in cases {
        let (engine, _) = engine(100, says(2, said));
        let (reply, logprobs) = read(&engine, request.temperature(0.0).logprobs(2));
        assert_eq!(reply.stop_reason, reason);
        assert_eq!(reply.logprobs, logprobs);
        assert_eq!(
            reply.tokens,
            logprobs.iter().map(|it| it.token).collect::<Vec<_>>()
        );
        if reason == StopReason::Eos {
            let end = logprobs.last().expect("an end token");
            assert_eq!((end.token, end.bytes.as_slice()), (END, &b""[..]));
        }
    }
}

#[test]
fn tokens_that_were_put_in_are_certain() {
    let asks = "{{ messages[0].content.split('</think>')[-1] }}<think>\n";
    let (engine, _) = engine_with_template(asks, 400, 4, chaotic);
    let request = Request::chat(vec![Message::user("q")])
        .seed(3)
        .max_new_tokens(40)
        .max_thinking_tokens(5)
        .logprobs(1);
    let (reply, said) = read(&engine, request);
    assert_eq!(reply.logprobs, said);
    let closing = "\n</think>\n\n".len();
    for (i, of) in reply.logprobs.iter().enumerate() {
        let is_put_in = (5..5 + closing).contains(&i);
        assert_eq!(of.logprob == 0.0, is_put_in, "token {i}");
        assert_eq!(of.top.is_empty(), is_put_in, "token {i}");
    }
}

#[test]
fn they_are_told_only_where_they_were_asked_for() {
    let (engine, _) = engine(100, says(2, "abc"));
    let reply = engine.generate(Request::prompt("pp")).expect("a reply");
    assert!(reply.logprobs.is_empty());
    let json = serde_json::to_value(&reply).expect("serializes");
    assert!(json.get("logprobs").is_none());
    let request = Request::prompt("pp").temperature(0.0).logprobs(1);
    let reply = engine.generate(request).expect("a reply");
    let json = serde_json::to_value(&reply).expect("serializes");
    assert_eq!(json["logprobs"][0]["bytes"], serde_json::json!([97]));
    assert_eq!(json["logprobs"][0]["top"][0]["token"], 97);
    let error = engine
        .generate(Request::prompt("pp").logprobs(MAX_TOP + 1))
        .expect_err("too many");
    assert_eq!(error.to_string(), "`logprobs` is 21, must be 0 to 20");
}

#[test]
fn a_reader_that_lags_makes_its_request_wait() {
    let (engine, _) = engine(10_000, chaotic);
    let request = Request::prompt("pp").max_new_tokens(2_000).logprobs(20);
    let lagging = engine.stream(request.clone()).expect("accepted");
    engine
        .generate(Request::prompt("q").max_new_tokens(500))
        .expect("a reply");
    lagging.cancel();
    let (mut told, mut end) = (0, None);
    for event in lagging {
        match event.expect("no error") {
            Event::Logprobs { logprobs, .. } => told += logprobs.len(),
            Event::Done(reply) => end = Some(reply),
            _ => {}
        }
    }
    let reply = end.expect("a reply");
    assert_eq!(reply.stop_reason, StopReason::Cancelled);
    assert!(told < 64 && told == reply.tokens.len(), "{told} tokens");
}
