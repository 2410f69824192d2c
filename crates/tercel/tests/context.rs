//! A prompt that is too long, from an engine's own default to the reply, on a tiny model.

mod tiny;

use tercel::{ContextOverflow, Message, ModelFiles, PromptCounter, Request, TokenCounter};
use tiny::{CONTEXT, TinyModel};

#[test]
fn an_engine_has_a_policy_that_a_request_may_change() {
    let model = TinyModel::new(&[]);
    let builder = model
        .builder()
        .context_overflow(ContextOverflow::DropOldestTurns);
    let engine = builder.load().expect("it loads");
    let mut messages = Vec::new();
    for turn in 0..6 {
        messages.push(Message::user(format!("question number {turn}")));
        messages.push(Message::assistant(format!("answer number {turn}")));
    }
    messages.push(Message::user("and now?"));
    let request = Request::chat(messages).max_new_tokens(4).seed(1);
    let reply = engine.generate(request.clone()).expect("it fits");
    let report = reply.context.expect("a report");
    assert_eq!(report.policy, ContextOverflow::DropOldestTurns);
    assert!(report.prompt_tokens_after + 4 <= CONTEXT as usize);
    assert_eq!(reply.usage.prompt_tokens, report.prompt_tokens_after);
    assert_eq!(reply.settings.context_overflow, report.policy);
    let json = serde_json::to_value(&report).expect("serializes");
    assert_eq!(json["cuts"][0]["what"], "turn");
    assert_eq!(json["cuts"][0]["role"], "user");

    let strict = request.context_overflow(ContextOverflow::Error);
    let error = engine.generate(strict).expect_err("too long");
    assert_eq!(error.kind(), "context_overflow");
    // What has no turns is refused by the engine's policy, with the way out.
    let error = engine
        .generate(Request::prompt("x".repeat(300)))
        .expect_err("too long");
    assert_eq!(error.kind(), "context_overflow");
    assert!(error.hint().expect("a hint").contains("truncate_middle"));
}

#[test]
fn a_prompt_is_counted_with_and_without_an_engine() {
    let model = TinyModel::new(&[]);
    let engine = model.builder().load().expect("it loads");
    let files = ModelFiles::open(&model.path).expect("a model");
    let counter = PromptCounter::of(&files).expect("a tokenizer");
    let messages = [Message::user("question")];
    let counts = |counter: &dyn TokenCounter| {
        let messages = counter.count_messages(&messages).expect("rendered");
        (
            messages,
            counter.count_prompt("a text"),
            counter.count("a text"),
        )
    };
    assert_eq!(counts(&engine), (Some(26), Some(6), 6));
    assert_eq!(counts(&counter), counts(&engine));
    let reply = engine.generate(Request::chat(messages.to_vec()).max_new_tokens(1));
    assert_eq!(reply.expect("a reply").usage.prompt_tokens, 26);
}
