use serde_json::{Value, json};

use super::*;
use crate::routes::openai::head::Head;
use crate::routes::openai::logprobs::entry;
use crate::routes::openai::responses::object::ResponseUsage;
use crate::routes::openai::responses::request::Echo;

fn encoder() -> ResponseEncoder {
    ResponseEncoder::new(
        ResponseObject::new(Head::for_tests(), Echo::default()),
        true,
    )
}

fn ending(incomplete: Option<&'static str>) -> Ending {
    let usage = ResponseUsage::for_tests(2, 1);
    Ending {
        incomplete,
        usage,
        calls: vec!["c1".to_owned()],
        ran_with: Some((0.5, 1.0)),
        block: None,
    }
}

/// The events of a stream; the name of each is in its data too.
fn events(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let value: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), value["type"].as_str());
        value
    });
    events.collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

#[test]
fn calls_are_items_with_their_arguments() {
    let mut encoder = encoder();
    let mut out = Vec::new();
    for (index, id, arguments) in [
        (0, Some("c1"), "{\"a\""),
        (0, None, ": 1}"),
        (1, Some("c2"), "{"),
    ] {
        let begun = id.map(|id| Begun {
            id: id.to_owned(),
            name: "add".to_owned(),
        });
        let call = CallPiece {
            index,
            begun,
            arguments: arguments.to_owned(),
        };
        encoder.piece(0, Piece::Call(call), &mut out);
    }
    // The second one was not to come to its end.
    encoder.finish(ending(Some("max_output_tokens")), &mut out);
    let events = events(&out);
    let one = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
    ];
    let rest = [
        "response.function_call_arguments.done",
        "response.output_item.done",
    ];
    let expected: Vec<&str> = [&one[..], &one[1..], &rest[..], &one[..], &rest[..]].concat();
    let names = names(&events);
    assert_eq!(names[..9], expected);
    assert_eq!(names[9..], ["response.incomplete"]);
    let output = &events[9]["response"]["output"];
    for (index, call_id, arguments, status) in [
        (0, "c1", "{\"a\": 1}", "completed"),
        (1, "c2", "{", "incomplete"),
    ] {
        let item = &output[index];
        assert_eq!(item["type"], "function_call");
        assert_eq!(
            (
                &item["call_id"],
                &item["name"],
                &item["arguments"],
                &item["status"]
            ),
            (
                &json!(call_id),
                &json!("add"),
                &json!(arguments),
                &json!(status)
            )
        );
        assert!(item["id"].as_str().unwrap().starts_with("fc_"));
    }
}

#[test]
fn a_thought_and_a_message_come_in_order() {
    let mut encoder = encoder();
    let mut out = Vec::new();
    encoder.start(&mut out);
    encoder.piece(0, Piece::Thinking("h".to_owned()), &mut out);
    encoder.piece(0, Piece::Thinking("m".to_owned()), &mut out);
    encoder.waiting.push(entry(b"a", -0.5, std::iter::empty()));
    encoder.piece(0, Piece::Text("a".to_owned()), &mut out);
    encoder.piece(0, Piece::Text("b".to_owned()), &mut out);
    encoder.finish(ending(None), &mut out);
    let events = events(&out);
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(events[6]["text"], "hm");
    assert_eq!(
        (&events[5]["output_index"], &events[12]["output_index"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(events[11]["logprobs"][0]["token"], "a");
    assert_eq!(events[12]["logprobs"], json!([]));
    assert_eq!(events[13]["text"], "ab");
    let response = &events[16]["response"];
    assert_eq!(response["status"], "completed");
    assert_eq!(
        (&response["store"], &response["temperature"]),
        (&json!(false), &json!(0.5))
    );
    assert_eq!(response["usage"]["input_tokens"], 2);
    assert_eq!(
        response["output"][0]["content"],
        json!([{"type": "reasoning_text", "text": "hm"}])
    );
    let message = &response["output"][1];
    assert_eq!(
        (&message["type"], &message["role"]),
        (&json!("message"), &json!("assistant"))
    );
    assert_eq!(message["content"][0]["text"], "ab");
    assert_eq!(
        message["content"][0]["logprobs"].as_array().unwrap().len(),
        1
    );
    assert_eq!(message["id"], events[11]["item_id"]);
}

#[test]
fn what_is_cut_off_is_incomplete() {
    let mut encoder = encoder();
    let mut out = Vec::new();
    encoder.piece(0, Piece::Text("a".to_owned()), &mut out);
    encoder.finish(ending(Some("max_output_tokens")), &mut out);
    let events = events(&out);
    let response = &events.last().unwrap()["response"];
    assert_eq!(names(&events).last(), Some(&"response.incomplete"));
    assert_eq!(
        response["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(response["output"][0]["status"], "incomplete");
}

#[test]
fn there_is_a_message_unless_the_thought_was_cut_off() {
    for (thought, incomplete, want) in [
        (false, None, vec!["message"]),
        (false, Some("timeout"), vec!["message"]),
        (true, None, vec!["reasoning", "message"]),
        (true, Some("timeout"), vec!["reasoning"]),
    ] {
        let mut encoder = encoder();
        let mut out = Vec::new();
        if thought {
            encoder.piece(0, Piece::Thinking("hm".to_owned()), &mut out);
        }
        encoder.finish(ending(incomplete), &mut out);
        let output = serde_json::to_value(&encoder.response().output).unwrap();
        let kinds: Vec<&str> = output
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, want);
    }
}

#[test]
fn a_failure_is_the_last_event() {
    let mut encoder = encoder();
    let mut out = Vec::new();
    encoder.start(&mut out);
    encoder.fail(&ApiError::bad_request("bad", "no"), &mut out);
    let events = events(&out);
    assert_eq!(names(&events).last(), Some(&"response.failed"));
    let response = &events[2]["response"];
    assert_eq!(response["status"], "failed");
    assert_eq!(
        response["error"],
        json!({"code": "server_error", "message": "no"})
    );
}
