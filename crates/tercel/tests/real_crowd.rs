//! The engine under load, on the real models.
//!
//! `cargo xtask test` pulls the models and names their files in the environment. What depends on
//! the speed of the machine is ignored unless asked for:
//! `cargo test --release -p tercel --test real_crowd -- --ignored --nocapture --test-threads=1`.

use std::thread;
use std::time::{Duration, Instant};

use tercel::{Engine, Event, KvType, Request, Stream};

const CROWD: usize = 8;

fn file(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        let problem = "is not set: run the tests by `cargo xtask test`";
        unreachable!("{variable} {problem}")
    })
}

/// Prompts that begin alike and go apart, some greedy, some sampled.
fn requests(n: usize) -> Vec<Request> {
    let shared = "The quick brown fox jumps over the lazy dog. ".repeat(12);
    let ends = [
        "Once upon a time",
        "The capital of France is",
        "1, 2, 3, 4, 5,",
    ];
    let request = |i: usize| {
        let beginning = if i.is_multiple_of(2) {
            shared.as_str()
        } else {
            ""
        };
        Request::prompt(format!("{beginning}{} {i}", ends[i % 3]))
            .seed(i as u64)
            .temperature([0.0, 0.8][i / 2 % 2])
            .max_new_tokens(16)
            .ignore_eos(true)
    };
    (0..n).map(request).collect()
}

/// The tokens of replies that are read at the same time: one that nobody reads is made to wait.
fn crowd(engine: &Engine, requests: &[Request]) -> Vec<Vec<u32>> {
    let start = |request: &Request| engine.stream(request.clone()).expect("accepted");
    let streams: Vec<Stream> = requests.iter().map(start).collect();
    let read = |stream: Stream| stream.wait().expect("a reply").tokens;
    thread::scope(|scope| {
        let reader = |stream| scope.spawn(move || read(stream));
        let readers: Vec<_> = streams.into_iter().map(reader).collect();
        let join = |reader: thread::ScopedJoinHandle<'_, _>| reader.join().expect("no panic");
        readers.into_iter().map(join).collect()
    })
}

#[test]
fn one_seed_one_text_alone_and_in_a_crowd() {
    let n = std::env::var("TERCEL_TEST_REQUESTS");
    let n = n.map_or(CROWD, |n| n.parse().expect("a number"));
    for variable in ["TERCEL_TEST_SMOLLM2", "TERCEL_TEST_GEMMA3"] {
        let builder = || {
            Engine::builder(file(variable))
                .max_context(512)
                .max_sequences(CROWD)
                .queue_capacity(1024)
                .offline(true)
        };
        for kv_type in [KvType::F16, KvType::Q8_0] {
            let plain = builder().kv_type(kv_type).threads(1).speculation(false);
            let alone = plain.load().expect("a model");
            let want: Vec<_> = requests(n)
                .into_iter()
                .map(|request| alone.generate(request).expect("a reply").tokens)
                .collect();
            drop(alone);
            let together = builder().kv_type(kv_type).threads(2).prefill_chunk(64);
            let together = together.load().expect("a model");
            for round in ["cold", "cached"] {
                assert_eq!(
                    crowd(&together, &requests(n)),
                    want,
                    "{variable} {kv_type:?} {round}"
                );
            }
        }
    }
}

#[test]
#[ignore = "depends on the speed of the machine"]
fn eight_chats_get_three_times_the_tokens_of_one() {
    let engine = Engine::builder(file("TERCEL_TEST_SMOLLM2"))
        .max_context(512)
        .max_sequences(CROWD)
        .speculation(false)
        .load()
        .expect("a model");
    let request = |i: usize| {
        Request::prompt(format!("Story {i}: once upon a time"))
            .seed(i as u64)
            .max_new_tokens(128)
            .ignore_eos(true)
    };
    let rate = |n: usize| {
        let requests: Vec<_> = (0..n).map(request).collect();
        let start = Instant::now();
        let tokens: usize = crowd(&engine, &requests).iter().map(Vec::len).sum();
        tokens as f64 / start.elapsed().as_secs_f64()
    };
    rate(1);
    let mut ratios: Vec<f64> = (0..5)
        .map(|_| {
            let (one, eight) = (rate(1), rate(CROWD));
            eprintln!(
                "{one:.0} tokens/s alone, {eight:.0} of eight: {:.2} x",
                eight / one
            );
            eight / one
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[2] >= 3.0, "{ratios:?}");
}

#[test]
#[ignore = "depends on the speed of the machine"]
fn a_long_prompt_slows_chats_less_than_twice() {
    let engine = Engine::builder(file("TERCEL_TEST_SMOLLM2"))
        .max_context(8192)
        .max_sequences(5)
        .speculation(false)
        .load()
        .expect("a model");
    let chat = |i: usize| {
        Request::prompt(format!("Story {i}: once upon a time"))
            .seed(i as u64)
            .max_new_tokens(1500)
            .ignore_eos(true)
    };
    let long = Request::tokens((0..6000).map(|i| 1000 + i * 7 % 20_000).collect());
    let alone = engine
        .generate(long.clone().max_new_tokens(1))
        .expect("a reply");
    eprintln!("the prompt alone: {:.1} s", alone.timings.prefill_seconds);
    engine.clear_prefixes().expect("running");
    // What a token costs grows with the length of its reply, so it is compared with the same token
    // of the same replies without the prompt.
    let quiet = times_of_chats(&engine, &chat, || ());
    engine.clear_prefixes().expect("running");
    let mut span = None;
    let beside = times_of_chats(&engine, &chat, || {
        thread::sleep(Duration::from_secs(4));
        let begun = Instant::now();
        let reply = engine.generate(long.max_new_tokens(1)).expect("a reply");
        span = Some((begun, Instant::now()));
        eprintln!("beside chats: {:.1} s", reply.timings.prefill_seconds);
    });
    let (begun, ended) = span.expect("a span");
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for (quiet, beside) in quiet.iter().zip(&beside) {
        assert_eq!(quiet.len(), beside.len(), "the same text");
        for (quiet, beside) in quiet.windows(2).zip(beside.windows(2)) {
            if beside[0] >= begun && beside[1] <= ended {
                before.push((quiet[1] - quiet[0]).as_secs_f64());
                during.push((beside[1] - beside[0]).as_secs_f64());
            }
        }
    }
    for gaps in [&mut before, &mut during] {
        gaps.sort_by(f64::total_cmp);
        let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize] * 1e3;
        eprintln!(
            "{} gaps, {:.1} ms at least, {:.1} in the middle, {:.1} p90, {:.1} p99, {:.1} at most",
            gaps.len(),
            at(0.0),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
    let p99 = |gaps: &[f64]| gaps[gaps.len() * 99 / 100] * 1e3;
    let (before, during) = (p99(&before), p99(&during));
    eprintln!("p99 {before:.1} ms alone, {during:.1} ms beside a prompt of 6000 tokens");
    assert!(during < 2.0 * before, "{before} ms, {during} ms");
}

/// When four replies at once gave each of their tokens, while `meanwhile` does something else.
fn times_of_chats(
    engine: &Engine,
    chat: &dyn Fn(usize) -> Request,
    meanwhile: impl FnOnce(),
) -> Vec<Vec<Instant>> {
    let start = |i| engine.stream(chat(i)).expect("accepted");
    let streams: Vec<_> = (0..4).map(start).collect();
    let read = |stream: Stream| {
        let mut times = Vec::new();
        for event in stream {
            if let Event::Delta { .. } = event.expect("no error") {
                times.push(Instant::now());
            }
        }
        times
    };
    let readers: Vec<_> = streams
        .into_iter()
        .map(|stream| thread::spawn(move || read(stream)))
        .collect();
    meanwhile();
    let join = |reader: thread::JoinHandle<_>| reader.join().expect("no panic");
    readers.into_iter().map(join).collect()
}
