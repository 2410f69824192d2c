//! Completions, sent in chunks.

use serde::Serialize;

use super::object::TextChoice;
use super::request::Shape;
use crate::error::ApiError;
use crate::routes::openai::head::Head;
use crate::routes::openai::logprobs::{TextLogprobs, TokenEntry, entries};
use crate::routes::openai::usage::Usage;
use crate::stream::{Encoder, Sse};
use crate::work::{Finished, Piece, TercelBlock};

/// Writes chunks: the prompt first where it is wanted, then what comes, then why it ended.
pub(super) struct TextEncoder {
    head: Head,
    shape: Shape,
    include_usage: bool,
    replies: Vec<Progress>,
}

/// How far a reply has come.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Tokens whose text is still to come.
    waiting: Vec<TokenEntry>,
    /// Characters of the tokens that were told of.
    offset: usize,
}

#[derive(Serialize)]
struct Chunk<'a, B: Serialize> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: Option<&'a str>,
    choices: &'a [TextChoice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tercel: Option<B>,
}

impl TextEncoder {
    pub(super) fn new(head: Head, replies: usize, shape: Shape, include_usage: bool) -> Self {
        let replies = vec![Progress::default(); replies];
        Self {
            head,
            shape,
            include_usage,
            replies,
        }
    }

    /// More text of a reply, perhaps its end.
    fn chunk<B: Serialize>(
        &mut self,
        index: usize,
        text: String,
        end: Option<(&'static str, B)>,
        out: &mut Vec<u8>,
    ) {
        let logprobs = self.tokens(index);
        let finish_reason = end.as_ref().map(|(reason, _)| *reason);
        let choice = TextChoice {
            index,
            text,
            logprobs,
            finish_reason,
        };
        let usage = self.include_usage.then_some(None);
        self.write(&[choice], usage, end.map(|(_, block)| block), out);
    }

    /// The tokens that waited for the text.
    fn tokens(&mut self, index: usize) -> Option<TextLogprobs> {
        let progress = self.replies.get_mut(index)?;
        let waiting = std::mem::take(&mut progress.waiting);
        let has_top = self.shape.logprobs? > 0;
        (!waiting.is_empty()).then(|| TextLogprobs::new(waiting, has_top, &mut progress.offset))
    }

    fn write<B: Serialize>(
        &self,
        choices: &[TextChoice],
        usage: Option<Option<Usage>>,
        tercel: Option<B>,
        out: &mut Vec<u8>,
    ) {
        let Head {
            id,
            created,
            model,
            fingerprint,
        } = &self.head;
        let chunk = Chunk {
            id,
            object: "text_completion",
            created: *created,
            model,
            system_fingerprint: fingerprint.as_deref(),
            choices,
            usage,
            tercel,
        };
        Sse::data(&chunk, out);
    }

    /// The last chunk, where counts are asked for, and the end.
    fn close(&self, usage: Usage, out: &mut Vec<u8>) {
        if self.include_usage {
            self.write(&[], Some(Some(usage)), None::<TercelBlock>, out);
        }
        Sse::done(out);
    }
}

impl Encoder for TextEncoder {
    fn start(&mut self, out: &mut Vec<u8>) {
        for index in 0..self.replies.len() {
            let echo = self.shape.echo(index).to_owned();
            if !echo.is_empty() {
                self.chunk(index, echo, None::<(_, TercelBlock)>, out);
            }
        }
    }

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Thinking(text) | Piece::Text(text) => {
                self.chunk(index, text, None::<(_, TercelBlock)>, out);
            }
            Piece::Logprobs(tokens) => {
                if let Some(progress) = self.replies.get_mut(index) {
                    progress.waiting.extend(entries(&tokens));
                }
            }
            // There are no tools here.
            Piece::Call(_) | Piece::Done(_) => {}
        }
    }

    fn done(&mut self, index: usize, finished: &Finished, out: &mut Vec<u8>) {
        let end = (finished.finish_reason(), finished.block());
        self.chunk(index, String::new(), Some(end), out);
    }

    fn end(&mut self, finished: &[Finished], out: &mut Vec<u8>) {
        self.close(Usage::of_replies(finished, self.shape.choices.max(1)), out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        Sse::data(&error.body(), out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::routes::openai::logprobs::entry;

    #[test]
    fn chunks_begin_with_the_prompt_and_end_with_the_reason() {
        let shape = Shape {
            choices: 2,
            echoes: vec!["say ".to_owned()],
            logprobs: None,
        };
        let mut encoder = TextEncoder::new(Head::for_tests(), 2, shape, true);
        let mut out = Vec::new();
        encoder.start(&mut out);
        encoder.piece(1, Piece::Text("hi".to_owned()), &mut out);
        encoder.chunk(
            1,
            String::new(),
            Some(("length", json!({"seed": 1}))),
            &mut out,
        );
        encoder.close(
            Usage {
                total_tokens: 3,
                ..Usage::default()
            },
            &mut out,
        );
        let text = std::str::from_utf8(&out).unwrap();
        let events: Vec<&str> = text.split_terminator("\n\n").collect();
        let events: Vec<Value> = events
            .iter()
            .map(|event| serde_json::from_str(&event[6..]).unwrap_or(Value::Null))
            .collect();
        let choice = |index, text, finish_reason: Value| json!([{"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason}]);
        let choices: Vec<&Value> = events
            .iter()
            .take(5)
            .map(|event| &event["choices"])
            .collect();
        assert_eq!(
            choices,
            [
                &choice(0, "say ", Value::Null),
                &choice(1, "say ", Value::Null),
                &choice(1, "hi", Value::Null),
                &choice(1, "", json!("length")),
                &json!([]),
            ]
        );
        assert!(
            events[..5]
                .iter()
                .all(|event| event["object"] == "text_completion")
        );
        assert_eq!(events[3]["tercel"], json!({"seed": 1}));
        assert_eq!(events[4]["usage"]["total_tokens"], 3);
        assert!(text.ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn tokens_come_with_their_text_and_offsets_go_on() {
        let shape = Shape {
            choices: 1,
            logprobs: Some(0),
            ..Shape::default()
        };
        let mut encoder = TextEncoder::new(Head::for_tests(), 1, shape, false);
        for (text, offset) in [("ab", 0), ("c", 2)] {
            let token = entry(text.as_bytes(), -1.0, std::iter::empty());
            encoder.replies[0].waiting.push(token);
            let mut out = Vec::new();
            encoder.piece(0, Piece::Text(text.to_owned()), &mut out);
            let chunk: Value = serde_json::from_slice(&out[6..]).unwrap();
            let want = json!({"tokens": [text], "token_logprobs": [-1.0], "top_logprobs": null,
                "text_offset": [offset]});
            assert_eq!(chunk["choices"][0]["logprobs"], want);
        }
    }
}
