//! Vectors and log-probabilities of every family: what else the engine does changes none.

mod families;
#[path = "families/names.rs"]
mod names;

use families::Family;
use tercel::{Engine, EngineBuilder, Event, Pooling, Request, Stream, TokenLogprob};

fn load(builder: EngineBuilder) -> Engine {
    builder.load().expect("a model")
}

/// Requests that keep the engine busy until they are dropped.
fn company(family: &Family, engine: &Engine) -> Vec<Stream> {
    let start = |i: usize| {
        let request = Request::tokens(family.tokens(50 + i as u64, 30 + 40 * i));
        let request = request.max_new_tokens(300).ignore_eos(true);
        engine.stream(request).expect("accepted")
    };
    (0..3).map(start).collect()
}

#[test]
fn vectors_do_not_depend_on_chunks_threads_company_and_the_cache() {
    for name in names::names() {
        let family = Family::open(&name);
        let texts = [1, 33, 150].map(|n| family.tokens(7, n));
        let vectors = |engine: &Engine| -> Vec<Vec<f32>> {
            let of = |text: &Vec<u32>| {
                [Pooling::Mean, Pooling::Last].map(|pooling| {
                    let vector = engine.embed(text, pooling);
                    vector.expect("a vector")
                })
            };
            texts.iter().flat_map(of).collect()
        };
        let want = vectors(&load(family.builder().threads(1).prefill_chunk(512)));
        for vector in &want {
            let length: f64 = vector.iter().map(|it| f64::from(*it).powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-5, "{name}: {length}");
        }
        // A text of one token has one hidden state; longer ones have others.
        assert_eq!(want[0], want[1], "{name}");
        assert_ne!(want[2], want[3], "{name}");
        for (threads, chunk) in [(1, 1), (2, 16), (2, 64)] {
            let engine = load(
                family
                    .builder()
                    .max_sequences(4)
                    .threads(threads)
                    .prefill_chunk(chunk),
            );
            assert_eq!(engine.info().model.hidden_size, want[0].len(), "{name}");
            let what = format!("{name}, {threads} threads, chunks of {chunk}");
            assert!(vectors(&engine) == want, "{what}");
            let others = company(&family, &engine);
            assert!(vectors(&engine) == want, "{what}, in company");
            drop(others);
            assert!(vectors(&engine) == want, "{what}, from the cache");
        }
    }
}

#[test]
fn log_probabilities_are_the_scores_of_the_same_tokens() {
    for name in names::names() {
        let family = Family::open(&name);
        let prompt = family.tokens(3, 40);
        let request = || {
            Request::tokens(prompt.repeat(2))
                .seed(1)
                .temperature(0.9)
                .max_new_tokens(30)
                .ignore_eos(true)
                .logprobs(4)
        };
        let plain = load(family.builder().threads(1).speculation(false));
        let reply = plain.generate(request()).expect("a reply");
        let tokens = [prompt.repeat(2), reply.tokens.clone()].concat();
        let scores = plain.score(&tokens, 79).expect("scores");
        let logprobs =
            |of: &[TokenLogprob]| -> Vec<f32> { of.iter().map(|it| it.logprob).collect() };
        let want: Vec<f32> = scores.into_iter().map(|score| score as f32).collect();
        assert_eq!(logprobs(&reply.logprobs), want, "{name}");
        for of in &reply.logprobs {
            assert_eq!(of.top.len(), 4, "{name}");
            let falls = of.top.windows(2).all(|it| it[0].logprob >= it[1].logprob);
            assert!(falls && of.logprob <= of.top[0].logprob, "{name}: {of:?}");
        }

        let engine = load(family.builder().threads(2).max_sequences(4));
        let others = company(&family, &engine);
        let mut said = Vec::new();
        for event in engine.stream(request()).expect("accepted") {
            match event.expect("no error") {
                Event::Logprobs { logprobs, .. } => said.extend(logprobs),
                Event::Done(streamed) => assert_eq!(streamed.logprobs, reply.logprobs, "{name}"),
                _ => {}
            }
        }
        assert_eq!(said, reply.logprobs, "{name}");
        drop(others);

        let greedy = Request::tokens(prompt.clone()).temperature(0.0).logprobs(1);
        let greedy = engine.generate(greedy.max_new_tokens(10).ignore_eos(true));
        for of in greedy.expect("a reply").logprobs {
            assert_eq!((of.token, of.logprob), (of.top[0].token, of.top[0].logprob));
        }
    }
}
