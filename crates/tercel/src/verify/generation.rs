//! Whether replies end: with the model loaded, on a question with a short answer and on one with a
//! longer one.

use std::path::Path;

use tercel_text::Message;

use super::Verification;
use crate::error::Error;
use crate::{Engine, Reply, Request, StopReason};

const STOP: &str = "eos stop";
/// Tokens that a reply gets.
const MAX_NEW_TOKENS: usize = 32;
/// Enough for the questions in any template.
const MAX_CONTEXT: usize = 1024;

const SHORT: &str = "What is the capital of France? Answer with one word.";
const LONGER: &str = "Explain in one or two sentences why small computers at the edge of a network \
    prefer small models, and name one drawback.";

pub(super) fn check(path: &Path, report: &mut Verification) {
    match replies(path) {
        Ok(replies) => replies.iter().for_each(|reply| judge(reply, report)),
        Err(error) => report.fail(STOP, error.to_string()),
    }
}

fn replies(path: &Path) -> Result<Vec<(&'static str, Reply)>, Error> {
    let builder = || Engine::builder(path.display().to_string()).offline(true);
    // A model may be trained for less than that.
    let engine = match builder().max_context(MAX_CONTEXT).load() {
        Err(Error::ContextTooLong { trained, .. }) => builder().max_context(trained).load()?,
        loaded => loaded?,
    };
    let ask = |(name, question): (&'static str, &str)| {
        let request = if engine.info().has_template {
            Request::chat(vec![Message::user(question)])
        } else {
            Request::prompt(question)
        };
        let request = request.max_new_tokens(MAX_NEW_TOKENS).temperature(0.0);
        Ok((name, engine.generate(request)?))
    };
    [
        ("the short question", SHORT),
        ("the longer question", LONGER),
    ]
    .into_iter()
    .map(ask)
    .collect()
}

fn judge((question, reply): &(&'static str, Reply), report: &mut Verification) {
    let tokens = reply.usage.generated_tokens;
    let said = !reply.text.trim().is_empty() || reply.thinking.is_some();
    match reply.stop_reason {
        StopReason::Eos if !said => report.warn(
            STOP,
            format!("nothing is said to {question}: the end token comes too early"),
        ),
        StopReason::Eos => report.ok(
            STOP,
            format!("the reply to {question} ends after {tokens} tokens"),
        ),
        _ => report.ok(
            STOP,
            format!(
                "the reply to {question} has no end within {tokens} tokens, which may be its length"
            ),
        ),
    }
}
