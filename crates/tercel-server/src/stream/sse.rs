//! Server-sent events, as OpenAI's and Anthropic's clients read them.

use serde::Serialize;

/// Writes events behind each other.
pub(crate) struct Sse;

impl Sse {
    pub(crate) const CONTENT_TYPE: &'static str = "text/event-stream; charset=utf-8";

    /// An event without a name.
    pub(crate) fn data(value: &impl Serialize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        json(value, out);
        out.extend_from_slice(b"\n\n");
    }

    /// An event with a name.
    pub(crate) fn event(name: &str, value: &impl Serialize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
        Self::data(value, out);
    }

    /// What ends OpenAI's streams.
    pub(crate) fn done(out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// One line of JSON: serde_json escapes every line break.
pub(crate) fn json(value: &impl Serialize, out: &mut Vec<u8>) {
    let length = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Only maps with keys that are no strings fail, and no wire type has any.
        out.truncate(length);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_lines_with_an_empty_one_behind() {
        let mut out = Vec::new();
        Sse::data(&json!({"a": "b\nc"}), &mut out);
        Sse::event("ping", &json!({}), &mut out);
        Sse::done(&mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "data: {\"a\":\"b\\nc\"}\n\nevent: ping\ndata: {}\n\ndata: [DONE]\n\n"
        );
    }
}
