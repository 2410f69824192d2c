use serde_json::{Value, json};

use crate::testing::{answers, chaotic, engine};
use crate::{Engine, Event, Message, Reply, Request, StopReason, Tool, ToolChoice};

fn weather() -> Tool {
    let city = json!({"type": "string", "maxLength": 12});
    let days = json!({"type": "integer", "minimum": 1, "maximum": 9});
    Tool::new(
        "weather",
        json!({
            "type": "object",
            "properties": {"city": city, "days": days},
            "required": ["city", "days"],
            "additionalProperties": false,
        }),
    )
}

fn time() -> Tool {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    Tool::new("time", schema).with_description("Tells the time.")
}

fn ask() -> Request {
    Request::chat(vec![Message::user("q")])
        .tools([weather(), time()])
        .seed(3)
        .max_new_tokens(400)
}

/// An engine that answers so.
fn says(reply: &'static str) -> Engine {
    engine(4_000, answers(move |_| reply.to_owned())).0
}

fn calls(reply: &Reply) -> Vec<(&str, &Value)> {
    let calls = reply.tool_calls.iter();
    calls.map(|call| (&*call.name, &call.arguments)).collect()
}

const OSLO: &str = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 2}}\n</tool_call>";

#[test]
fn calls_are_told_from_text_whole_and_as_they_come() {
    let engine = says(OSLO);
    let reply = engine.generate(ask().temperature(0.0)).expect("a reply");
    assert_eq!(reply.text, "I look.\n");
    assert_eq!(
        calls(&reply),
        [("weather", &json!({"city": "Oslo", "days": 2}))]
    );
    assert_eq!(reply.stop_reason, StopReason::ToolCall);
    assert_eq!(reply.tool_parse_error, None);

    let (mut text, mut arguments, mut begun) = (String::new(), String::new(), Vec::new());
    let mut pieces = 0;
    for event in engine.stream(ask().temperature(0.0)).expect("accepted") {
        match event.expect("an event") {
            Event::Delta { text: more, .. } => text.push_str(&more),
            Event::ToolCall {
                index: 0,
                id,
                name,
                arguments: more,
                ..
            } => {
                begun.extend(id.zip(name));
                arguments.push_str(&more);
                pieces += 1;
            }
            Event::Done(done) => assert_eq!(done.tool_calls, reply.tool_calls),
            event => panic!("{event:?}"),
        }
    }
    let id = reply.tool_calls[0].id.clone().expect("an id");
    assert_eq!(
        (text.as_str(), begun),
        ("I look.\n", vec![(id.clone(), "weather".to_owned())])
    );
    assert_eq!(arguments, "{\"city\": \"Oslo\", \"days\": 2}");
    assert!(pieces > 10, "{pieces} pieces");
    assert!(
        id.len() == 9 && id.bytes().all(|it| it.is_ascii_alphanumeric()),
        "{id}"
    );
}

#[test]
fn what_is_no_call_is_text_and_told() {
    let broken = "<tool_call>\n{\"name\": \"weather\", \"arguments\": [}\n</tool_call>";
    let reply = says(broken)
        .generate(ask().temperature(0.0))
        .expect("a reply");
    assert_eq!((&*reply.text, calls(&reply).len()), (broken, 0));
    assert!(reply.tool_parse_error.is_some());
    assert_eq!(reply.stop_reason, StopReason::Eos);
}

#[test]
fn the_model_is_told_of_tools_in_words_where_its_template_is_not() {
    let engine = says("no");
    let prompt = |request: &Request| {
        let tokens = engine.tokens_of(request).expect("tokens");
        let bytes = tokens.into_iter().filter_map(|it| u8::try_from(it).ok());
        String::from_utf8(bytes.collect()).expect("text")
    };
    let told = prompt(&ask());
    assert!(told.contains(&weather().function().to_string()), "{told}");
    assert!(told.contains("Tells the time."), "{told}");
    assert_eq!(prompt(&Request::chat(vec![Message::user("q")])), "u:q\na:");
    // One that knows of them gets them as they are.
    let own = "{% for t in tools %}{{ t.function.name }},{% endfor %}{{ messages[0].content }}";
    assert_eq!(prompt(&ask().template(own)), "weather,time,q");
}

#[test]
fn one_call_is_enough_where_several_are_not_wanted() {
    let two = "<tool_call>{\"name\": \"time\"}</tool_call><tool_call>{\"name\": \"time\"}</tool_call> and more";
    let engine = says(two);
    let several = engine.generate(ask().temperature(0.0)).expect("a reply");
    assert_eq!((several.tool_calls.len(), &*several.text), (2, " and more"));
    let ids: Vec<_> = several.tool_calls.iter().map(|it| &it.id).collect();
    assert_ne!(ids[0], ids[1]);
    let one = engine
        .generate(ask().temperature(0.0).parallel_tool_calls(false))
        .expect("a reply");
    assert_eq!((one.tool_calls.len(), &*one.text), (1, ""));
    assert_eq!(one.stop_reason, StopReason::ToolCall);
    assert!(one.tokens.len() < several.tokens.len());
}

#[test]
fn what_is_required_comes_and_keeps_to_its_schema() {
    let (engine, _) = engine(4_000, chaotic);
    let reply = |request: Request, seed| {
        let request = request
            .temperature(1.0)
            .seed(seed)
            .parallel_tool_calls(false);
        engine.generate(request).expect("a reply")
    };
    for seed in 0..20 {
        let required = reply(ask().tool_choice(ToolChoice::Required), seed);
        assert_eq!(
            required.stop_reason,
            StopReason::ToolCall,
            "{}",
            required.text
        );
        assert_eq!((required.tool_calls.len(), &*required.text), (1, ""));

        let named = reply(ask().tool_choice(ToolChoice::Named("weather".into())), seed);
        let [("weather", arguments)] = calls(&named)[..] else {
            panic!("{:?}", named.tool_calls);
        };
        assert!(arguments["city"].as_str().expect("a city").chars().count() <= 12);
        assert!((1..=9).contains(&arguments["days"].as_i64().expect("a number")));

        let again = reply(ask().tool_choice(ToolChoice::Named("weather".into())), seed);
        assert_eq!(again.tool_calls, named.tool_calls);
    }
}

#[test]
fn a_strict_tool_is_called_by_its_schema_alone() {
    // It would write a city that is too long and a number that is none.
    let wrong = "Well. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Llanfairpwllgwyngyll\", \"days\": \"two\"}}\n</tool_call>";
    let strict = Request::chat(vec![Message::user("q")])
        .tools([weather().with_strict(true), time()])
        .parallel_tool_calls(false)
        .temperature(0.0)
        .max_new_tokens(400);
    let reply = says(wrong).generate(strict.clone()).expect("a reply");
    assert_eq!(reply.text, "Well. ");
    let arguments = &reply.tool_calls[0].arguments;
    assert_eq!(arguments["city"], "Llanfairpwll");
    assert!(arguments["days"].is_i64(), "{arguments}");
    // Text is as free as ever.
    let reply = says("Just text, <b>bold</b>.")
        .generate(strict)
        .expect("a reply");
    assert_eq!(
        (&*reply.text, reply.stop_reason),
        ("Just text, <b>bold</b>.", StopReason::Eos)
    );
}

#[test]
fn an_answer_may_keep_to_a_schema_while_tools_are_at_hand() {
    let schema = json!({"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"], "additionalProperties": false});
    let request = || ask().json_schema(schema.clone()).temperature(0.0);
    let answered = says("{\"a\": \"no\"}")
        .generate(request())
        .expect("a reply");
    assert_eq!(
        (&*answered.text, answered.tool_calls.len()),
        ("{\"a\": \"no\"}", 0)
    );
    let called = says(&OSLO[8..]).generate(request()).expect("a reply");
    assert_eq!((&*called.text, called.tool_calls.len()), ("", 1));
    // Where none may be called, the answer it is.
    let request = request().tool_choice(ToolChoice::None);
    let answered = says(&OSLO[8..]).generate(request).expect("a reply");
    assert!(
        serde_json::from_str::<Value>(&answered.text).is_ok(),
        "{}",
        answered.text
    );
}

#[test]
fn none_is_called_where_none_is_to_be() {
    let reply = says(OSLO)
        .generate(ask().temperature(0.0).tool_choice(ToolChoice::None))
        .expect("a reply");
    assert!(!reply.text.contains("<tool_call>"), "{}", reply.text);
    assert!(reply.tool_calls.is_empty());
}

#[test]
fn tools_that_cannot_be_are_refused() {
    let engine = says("");
    let many = (0..200).map(|nth| Tool::new(format!("t{nth}"), Value::Null));
    let unique =
        json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
    let chat = || Request::chat(vec![Message::user("q")]);
    for (request, kind, part) in [
        (
            chat().tools([Tool::new("a b", Value::Null)]),
            "invalid_parameter",
            "`name`",
        ),
        (
            chat().tools([time(), time()]),
            "invalid_parameter",
            "`time` once more",
        ),
        (
            chat().tools([Tool::new("a", json!([]))]),
            "invalid_parameter",
            "`parameters`",
        ),
        (
            chat().tools([Tool::new("a", json!({"type": "string"}))]),
            "invalid_parameter",
            "`parameters.type`",
        ),
        (chat().tools(many), "invalid_parameter", "at most 128"),
        (
            chat().tool_choice(ToolChoice::Required),
            "invalid_parameter",
            "left out",
        ),
        (
            ask().tool_choice(ToolChoice::Named("x".into())),
            "invalid_parameter",
            "weather, time",
        ),
        (
            Request::prompt("q").tools([time()]),
            "invalid_parameter",
            "without a template",
        ),
        (
            chat()
                .tools([time(), Tool::new("u", unique.clone())])
                .tool_choice(ToolChoice::Required),
            "invalid_grammar",
            "`u`: JSON schema",
        ),
    ] {
        let error = engine.generate(request).expect_err(part);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    // What is not kept to need not be possible to keep to.
    assert!(
        engine
            .generate(chat().tools([Tool::new("u", unique)]))
            .is_ok()
    );
}
