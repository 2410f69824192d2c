//! The engine from a file to a reply, on a tiny random model written by the test.

mod tiny;

use std::fs;
use std::sync::{Arc, Mutex};

use tercel::{
    ContextOverflow, Engine, Error, Message, ModelFiles, Phase, Progress, Request, Sampling,
    StopReason, Thinking,
};
use tiny::{CONTEXT, LAYERS, TEMPLATE, TinyModel, VOCAB};

#[test]
fn a_model_loads_says_how_far_it_is_and_replies() {
    let model = TinyModel::new(&[]);
    let reports: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let sink = Arc::clone(&reports);
    let engine = Engine::builder(model.name())
        .threads(1)
        .on_progress(move |progress| sink.lock().expect("no panic").push(progress.clone()))
        .load()
        .expect("it loads");

    let reports = reports.lock().expect("no panic");
    let phases: Vec<Phase> = reports.iter().map(|report| report.phase).collect();
    assert!(
        phases
            .iter()
            .all(|phase| matches!(phase, Phase::Loading | Phase::Ready))
    );
    assert_eq!(
        phases
            .iter()
            .filter(|&&phase| phase == Phase::Ready)
            .count(),
        1
    );
    assert_eq!(phases.last(), Some(&Phase::Ready));
    assert!(
        reports
            .windows(2)
            .all(|pair| pair[0].fraction <= pair[1].fraction)
    );

    let info = engine.info();
    assert_eq!(
        (info.model.architecture.as_str(), info.model.vocab_size),
        ("llama", VOCAB)
    );
    assert_eq!((info.max_context, info.threads), (CONTEXT as usize, 1));
    assert!(info.has_template && info.backend.starts_with("cpu-"));
    assert_eq!(engine.template(), Some(TEMPLATE));
    assert_eq!(info.path, model.path);

    let reply = engine
        .generate(Request::prompt("hello").max_new_tokens(8).ignore_eos(true))
        .expect("a reply");
    assert_eq!(reply.stop_reason, StopReason::MaxNewTokens);
    assert_eq!(
        (reply.usage.prompt_tokens, reply.usage.generated_tokens),
        (5, 8)
    );
    let mut chat = engine
        .chat()
        .system("short")
        .max_new_tokens(4)
        .ignore_eos(true);
    chat.ask("hi").expect("a reply");
    let second = chat.ask("and?").expect("a reply");
    assert!(second.usage.cached_tokens > 10, "{:?}", second.usage);
}

#[test]
fn a_seed_gives_one_text_whatever_threads_chunks_and_restarts() {
    let model = TinyModel::new(&[]);
    let reply = |threads, chunk| {
        let engine = model.builder().threads(threads).prefill_chunk(chunk).load();
        let prompt = "a prompt that is long enough to be cut into some chunks of tokens";
        let request = Request::prompt(prompt)
            .max_new_tokens(60)
            .seed(11)
            .temperature(1.3);
        engine
            .expect("it loads")
            .generate(request)
            .expect("a reply")
            .tokens
    };
    let expected = reply(1, 256);
    assert!(expected.len() > 3, "{expected:?}");
    for (threads, chunk) in [(1, 256), (2, 256), (1, 1), (2, 7), (3, 64)] {
        assert_eq!(
            reply(threads, chunk),
            expected,
            "{threads} threads, chunks of {chunk}"
        );
    }
}

#[test]
fn scores_do_not_depend_on_where_they_begin() {
    let model = TinyModel::new(&[]);
    let engine = model.builder().prefill_chunk(8).load().expect("it loads");
    let tokens: Vec<u32> = (0..100).map(|i| (i * 7) % 250).collect();
    let all = engine.score(&tokens, 0).expect("scores");
    assert_eq!(all.len(), 99);
    assert!(all.iter().all(|score| score.is_finite() && *score < 0.0));
    for from in [1, 50, 98] {
        assert_eq!(engine.score(&tokens, from).expect("scores"), all[from..]);
    }
}

#[test]
fn the_tokens_of_a_prompt_are_known_before_it_runs() {
    let model = TinyModel::new(&[
        ("tokenizer.ggml.add_bos_token", true.into()),
        ("tokenizer.ggml.bos_token_id", 7_u32.into()),
    ]);
    let engine = model.builder().load().expect("it loads");
    let long = "a".repeat(2 * CONTEXT as usize);
    let turns = |text: &str| Request::chat(vec![Message::system("s"), Message::user(text)]);
    let requests = [
        Request::prompt("hello"),
        Request::tokens(vec![3, 1, 4]),
        turns("hello"),
        turns("hello").template("{{ messages[1].content }}"),
    ];
    for request in requests {
        let tokens = engine.tokens_of(&request).expect("tokens");
        let stream = engine.stream(request.max_new_tokens(1)).expect("accepted");
        assert_eq!(stream.prompt_tokens(), tokens.len());
        let stream = stream.into_async();
        assert_eq!(stream.prompt_tokens(), tokens.len());
        assert_eq!(
            engine
                .generate(Request::tokens(tokens.clone()).max_new_tokens(1))
                .expect("a reply")
                .usage
                .prompt_tokens,
            tokens.len()
        );
    }
    let raw = engine.raw_tokens("hi").expect("tokens");
    assert_eq!(raw, [7, 104, 105]);
    assert_eq!(
        engine.tokens_of(&Request::prompt("hi")).expect("tokens"),
        raw
    );

    // What is too long is counted whole, and cut only where it runs.
    let request = turns(&long).context_overflow(ContextOverflow::TruncateMiddle);
    let whole = engine.tokens_of(&request).expect("tokens").len();
    assert!(whole > long.len());
    let cut = engine.stream(request.max_new_tokens(4)).expect("accepted");
    let most = cut.prompt_tokens();
    assert!(most < CONTEXT as usize, "{most} tokens");
    assert_eq!(cut.wait().expect("a reply").usage.prompt_tokens, most);

    for (request, kind) in [
        (Request::prompt(""), "empty_prompt"),
        (Request::tokens(vec![VOCAB as u32]), "invalid_parameter"),
        (Request::chat(Vec::new()), "empty_messages"),
        (
            Request::prompt("x").thinking(Thinking::On),
            "invalid_parameter",
        ),
    ] {
        assert_eq!(
            engine.tokens_of(&request).expect_err("refused").kind(),
            kind
        );
    }
    assert_eq!(
        engine.raw_tokens("").expect_err("refused").kind(),
        "empty_prompt"
    );
}

#[test]
fn a_conversation_is_rendered_with_and_without_the_beginning_of_a_reply() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}\
        {% if add_generation_prompt %}assistant:{% endif %}";
    let model = TinyModel::new(&[("tokenizer.chat_template", template.into())]);
    let engine = model.builder().load().expect("it loads");
    let messages = [Message::user("hi"), Message::assistant("yes")];
    for (to_reply, want) in [
        (false, "user: hi;assistant: yes;"),
        (true, "user: hi;assistant: yes;assistant:"),
    ] {
        assert_eq!(engine.render(&messages, to_reply).expect("text"), want);
        let kind = engine.render(&[], to_reply).expect_err("refused").kind();
        assert_eq!(kind, "empty_messages");
    }
}

#[test]
fn a_bias_on_a_token_that_there_is_not_is_refused() {
    let model = TinyModel::new(&[]);
    let engine = model.builder().load().expect("it loads");
    let with = |token, bias| {
        let request = Request::prompt("x").logit_bias(vec![(token, bias)]);
        engine.generate(request.max_new_tokens(5).ignore_eos(true))
    };
    let forced = with(VOCAB as u32 - 1, 100.0).expect("a reply");
    assert_eq!(forced.tokens, [VOCAB as u32 - 1; 5]);
    let json = serde_json::to_value(&forced.settings).expect("serializes");
    assert_eq!(json["logit_bias"], serde_json::json!([[256, 100.0]]));
    let error = with(VOCAB as u32, 1.0).expect_err("refused");
    let want = "`logit_bias` is a list with 257, must be ids below 257";
    assert_eq!(error.to_string(), want);
    assert_eq!(
        with(1, 100.5).expect_err("refused").kind(),
        "invalid_parameter"
    );
}

#[test]
fn a_load_that_fails_names_the_thing_and_never_says_ready() {
    let whole = TinyModel::new(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let bytes = fs::read(&whole.path).expect("read");
    let unknown = TinyModel::new(&[("general.architecture", "no-such-thing".into())]);
    let no_tokenizer = TinyModel::new(&[("tokenizer.ggml.model", "no-such-kind".into())]);
    let cases = [
        (
            directory.path().join("missing.gguf").display().to_string(),
            "model_not_found",
            "missing.gguf",
        ),
        (write("empty.gguf", b""), "model_load_failed", "empty.gguf"),
        (
            write("text.gguf", b"this is no model at all"),
            "model_load_failed",
            "text.gguf",
        ),
        (
            write("short.gguf", &bytes[..bytes.len() - 1]),
            "model_load_failed",
            "short.gguf",
        ),
        (
            write("header.gguf", &bytes[..100]),
            "model_load_failed",
            "header.gguf",
        ),
        (unknown.name(), "model_load_failed", "no-such-thing"),
        (no_tokenizer.name(), "model_load_failed", "no-such-kind"),
    ];
    for (name, kind, part) in cases {
        let ready = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&ready);
        let error = Engine::builder(&name)
            .on_progress(move |report| {
                *seen.lock().expect("no panic") |= report.phase == Phase::Ready;
            })
            .load()
            .expect_err("it cannot load");
        let message = error.to_string();
        assert_eq!(error.kind(), kind, "{message}");
        assert!(message.contains(part), "{message}");
        assert!(!message.contains('\n'), "{message}");
        assert!(!*ready.lock().expect("no panic"), "{name}");
    }
}

#[test]
fn the_context_is_checked_against_the_model() {
    let model = TinyModel::new(&[]);
    let error = model
        .builder()
        .max_context(161)
        .load()
        .expect_err("too long");
    assert!(
        matches!(
            error,
            Error::ContextTooLong {
                requested: 161,
                trained: 160
            }
        ),
        "{error}"
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("use at most `--max-context 160`")
    );
    let engine = model.builder().max_context(10).load().expect("it loads");
    let error = engine
        .generate(Request::prompt("0123456789"))
        .expect_err("too long");
    assert!(matches!(
        error,
        Error::ContextOverflow {
            prompt_tokens: 10,
            max_context: 10
        }
    ));
    let request = Request::prompt("012345678").ignore_eos(true);
    let reply = engine.generate(request).expect("a reply");
    assert_eq!(
        (reply.stop_reason, reply.tokens.len()),
        (StopReason::ContextFull, 1)
    );
}

#[test]
fn without_a_template_a_chat_is_refused_and_a_prompt_is_not() {
    let chat = || Request::chat(vec![Message::user("hi")]).max_new_tokens(1);
    let missing = TinyModel::new(&[("tokenizer.chat_template", 7_u32.into())]);
    let engine = missing.builder().load().expect("it loads");
    assert_eq!(engine.info().notes.len(), 1, "{:?}", engine.info().notes);
    let error = engine.generate(chat()).expect_err("no template");
    assert_eq!(error.kind(), "no_chat_template");
    assert!(error.hint().expect("a hint").contains("--raw"));
    engine
        .generate(Request::prompt("hi").max_new_tokens(1))
        .expect("a reply");

    let broken = TinyModel::new(&[("tokenizer.chat_template", "{% if %}".into())]);
    let engine = broken.builder().load().expect("it loads");
    assert!(
        engine.info().notes[0].contains("chat template"),
        "{:?}",
        engine.info().notes
    );
    assert_eq!(
        engine.generate(chat()).expect_err("broken").kind(),
        "invalid_template"
    );

    let given = broken
        .builder()
        .template(TEMPLATE)
        .load()
        .expect("it loads");
    given.generate(chat()).expect("a reply");
    assert_eq!(given.template(), Some(TEMPLATE));
}

#[test]
fn a_load_can_be_cancelled() {
    let model = TinyModel::new(&[]);
    let error = model
        .builder()
        .cancel_when(|| true)
        .load()
        .expect_err("cancelled");
    assert_eq!(error.kind(), "cancelled");
}

#[test]
fn the_models_sampling_defaults_apply_under_the_requests() {
    let model = TinyModel::new(&[
        ("general.sampling.temp", 0.25_f32.into()),
        ("general.sampling.top_k", 7_i32.into()),
    ]);
    let engine = model.builder().load().expect("it loads");
    let request = Request::prompt("x").max_new_tokens(1).top_k(3);
    let settings = engine.generate(request).expect("a reply").settings;
    assert_eq!(
        (settings.temperature, settings.top_k, settings.top_p),
        (0.25, 3, 0.9)
    );
}

#[test]
fn the_builders_defaults_come_between_the_requests_and_the_models() {
    let model = TinyModel::new(&[
        ("general.sampling.temp", 0.25_f32.into()),
        ("general.sampling.top_k", 7_i32.into()),
    ]);
    let mut defaults = Sampling::default();
    defaults.top_k = Some(5);
    defaults.thinking = Some(Thinking::Off);
    defaults.max_thinking_tokens = Some(9);
    let engine = model.builder().sampling(defaults.clone()).load();
    let engine = engine.expect("it loads");
    let settings = |request: Request| {
        let reply = engine.generate(request.max_new_tokens(1)).expect("a reply");
        reply.settings
    };
    let chat = Request::chat(vec![Message::user("x")]);
    // In a prompt without a template no thought is looked for.
    for (request, thinking) in [
        (Request::prompt("x"), Thinking::Auto),
        (chat, Thinking::Off),
    ] {
        let settings = settings(request);
        assert_eq!((settings.temperature, settings.top_k), (0.25, 5));
        assert_eq!(settings.thinking, thinking);
    }
    defaults.max_thinking_tokens = Some(0);
    let error = model.builder().sampling(defaults).load();
    assert_eq!(error.expect_err("refused").kind(), "invalid_parameter");
}

#[test]
fn a_file_can_be_looked_into_without_loading_it() {
    let model = TinyModel::new(&[]);
    let file = ModelFiles::open(&model.path).expect("a model");
    let found = file.inspect(None).expect("a model");
    assert_eq!(
        (found.model.n_layers, found.tensors),
        (LAYERS, 3 + 9 * LAYERS)
    );
    assert_eq!(found.template.as_deref(), Some(TEMPLATE));
    assert_eq!(found.tensor_types.len(), 1);
    assert_eq!(found.max_context, CONTEXT as usize);
    let smaller = file.inspect(Some(32)).expect("a model");
    assert!(smaller.memory.kv_bytes < found.memory.kv_bytes);
    assert_eq!(
        file.inspect(Some(999)).expect_err("too long").kind(),
        "invalid_parameter"
    );
    let tokenizer = file.tokenizer().expect("a tokenizer");
    assert_eq!(
        tokenizer.decode(&tokenizer.encode("some text")),
        "some text"
    );

    let engine = model.builder().load().expect("it loads");
    let estimated = file.inspect(None).expect("a model").memory;
    assert_eq!(engine.info().memory.weights_bytes, estimated.weights_bytes);
    assert_eq!(engine.info().memory.kv_bytes, estimated.kv_bytes);
}
