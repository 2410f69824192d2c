//! Vectors by their definition, and through the public face, around models made of closures.

use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::Request;
use crate::testing::{VOCAB_SIZE, block_on, chaotic, engine, engine_with_chunks, says};

/// A text of `len` tokens.
fn tokens(len: TokenId) -> Vec<TokenId> {
    (0..len).map(|i| i * 37 % 256).collect()
}

/// What the definition makes of the hidden states, which are the model's rows.
fn reference(tokens: &[TokenId], pooling: Pooling) -> Vec<f64> {
    let rows: Vec<Vec<f32>> = (1..=tokens.len()).map(|n| chaotic(&tokens[..n])).collect();
    let from = match pooling {
        Pooling::Mean => 0,
        Pooling::Last => rows.len() - 1,
    };
    let sum = |i: usize| {
        rows[from..]
            .iter()
            .map(|row| f64::from(row[i]))
            .sum::<f64>()
    };
    let mean: Vec<f64> = (0..VOCAB_SIZE)
        .map(|i| sum(i) / (rows.len() - from) as f64)
        .collect();
    let length = mean.iter().map(|it| it * it).sum::<f64>().sqrt();
    mean.into_iter().map(|it| it / length).collect()
}

#[test]
fn a_vector_is_that_of_the_definition_whatever_the_chunks_and_the_company() {
    for (pooling, len) in [Pooling::Mean, Pooling::Last].into_iter().zip([1, 50]) {
        for len in [len, 7, 120] {
            let text = tokens(len);
            let want = reference(&text, pooling);
            let (alone, _) = engine_with_chunks(200, 1, chaotic);
            let vector = alone.embed(&text, pooling).expect("a vector");
            assert_eq!(vector.len(), VOCAB_SIZE);
            for (got, want) in vector.iter().zip(&want) {
                assert!(
                    (f64::from(*got) - want).abs() < 1e-6,
                    "{pooling:?}, {len} tokens"
                );
            }
            for chunk in [3, 16, 500] {
                let (engine, _) = engine_with_chunks(200, chunk, chaotic);
                let others = (0..2).map(|i| {
                    let other = Request::tokens(tokens(20 + i)).max_new_tokens(60);
                    engine.stream(other).expect("accepted")
                });
                let others: Vec<_> = others.collect();
                // The second time, the cache holds all that it may.
                for _ in 0..2 {
                    assert_eq!(engine.embed(&text, pooling).expect("a vector"), vector);
                    let again = block_on(engine.embed_async(text.clone(), pooling));
                    assert_eq!(again.expect("a vector"), vector);
                }
                drop(others);
            }
        }
    }
}

#[test]
fn the_last_token_alone_is_computed_again_where_the_rest_is_held() {
    for (pooling, computed) in [(Pooling::Last, 1), (Pooling::Mean, 40)] {
        let (engine, steps) = engine_with_chunks(200, 8, chaotic);
        let text = tokens(40);
        engine.embed(&text, pooling).expect("a vector");
        steps.lock().expect("no panic").clear();
        engine.embed(&text, pooling).expect("a vector");
        let again: usize = steps.lock().expect("no panic").iter().sum();
        assert_eq!(again, computed, "{pooling:?}");
    }
}

#[test]
fn texts_that_cannot_be_are_refused() {
    let (engine, _) = engine(30, |held: &[TokenId]| {
        if held.len() == 6 {
            vec![f32::NAN; VOCAB_SIZE]
        } else {
            chaotic(held)
        }
    });
    let kind = |text: &[TokenId]| {
        engine
            .embed(text, Pooling::Mean)
            .expect_err("refused")
            .kind()
    };
    assert_eq!(kind(&[]), "empty_prompt");
    assert_eq!(kind(&[1, 257]), "invalid_parameter");
    assert_eq!(kind(&tokens(31)), "context_overflow");
    assert_eq!(kind(&tokens(30)), "invalid_logits");
    engine.embed(&tokens(5), Pooling::Mean).expect("a vector");
    let last = engine.embed(&tokens(30), Pooling::Last);
    last.expect("only the last one counts");
}

/// An engine that needs a while for each token of a prompt.
fn slow() -> Engine {
    engine(5_000, |held| {
        thread::sleep(Duration::from_millis(1));
        chaotic(held)
    })
    .0
}

#[test]
fn a_future_that_is_dropped_ends_its_work_at_work_and_waiting() {
    let engine = slow();
    let long = tokens(4_000);
    for at_work in [true, false] {
        let busy: Vec<_> = (0..if at_work { 0 } else { 4 })
            .map(|_| {
                let endless = Request::tokens(vec![1]).max_new_tokens(4_000);
                let mut stream = engine.stream(endless).expect("accepted");
                stream.next().expect("an event").expect("no error");
                stream
            })
            .collect();
        let mut future = Box::pin(engine.embed_async(long.clone(), Pooling::Mean));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        let until = |running: usize, waiting: usize| {
            let started = Instant::now();
            while (engine.activity().running, engine.activity().waiting) != (running, waiting) {
                assert!(
                    started.elapsed() < Duration::from_secs(2),
                    "{:?}",
                    engine.activity()
                );
                thread::yield_now();
            }
        };
        if at_work {
            until(1, 0);
        } else {
            until(4, 1);
        }
        drop(future);
        until(busy.len(), 0);
        drop(busy);
        until(0, 0);
        assert_eq!(engine.activity().kv.sequences, 0);
    }
}

#[test]
fn an_engine_that_goes_tells_who_waits_for_a_vector() {
    let (engine, _) = engine(100, |held: &[TokenId]| {
        assert!(held.len() < 8, "a fault on purpose");
        chaotic(held)
    });
    for _ in 0..2 {
        let error = engine
            .embed(&tokens(20), Pooling::Mean)
            .expect_err("an error");
        assert!(error.to_string().contains("a fault on purpose"), "{error}");
    }
    assert_eq!(engine.activity().running, 0);
}

#[test]
fn vectors_and_replies_leave_each_other_alone() {
    let (engine, _) = engine(100, says(3, "abc"));
    engine.embed(&tokens(3), Pooling::Mean).expect("a vector");
    let reply = engine.generate(Request::tokens(tokens(3)).temperature(0.0));
    assert_eq!(reply.expect("a reply").text, "abc");
}

#[test]
fn vectors_have_length_one_and_the_direction_of_the_mean_or_the_last() {
    let rows = [[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]];
    let cases = [(Pooling::Mean, [0.6, 0.8]), (Pooling::Last, [0.6, 0.8])];
    for (pooling, want) in cases {
        let mut pooled = Pooled::new(pooling);
        rows.iter().for_each(|row| pooled.push(row));
        assert_eq!(pooled.finish(), Ok(want.to_vec()), "{pooling:?}");
    }
    let mut last = Pooled::new(Pooling::Last);
    rows[..2].iter().for_each(|row| last.push(row));
    assert_eq!(last.finish(), Ok(vec![0.0, 1.0]));
}

#[test]
fn what_is_no_number_is_an_error_and_nothing_stays_nothing() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut pooled = Pooled::new(Pooling::Mean);
        pooled.push(&[0.0, bad]);
        assert_eq!(pooled.finish(), Err(InvalidLogits));
    }
    let mut pooled = Pooled::new(Pooling::Mean);
    pooled.push(&[0.0, 0.0]);
    assert_eq!(pooled.finish(), Ok(vec![0.0, 0.0]));
}
