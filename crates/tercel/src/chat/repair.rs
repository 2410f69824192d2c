//! Answers that the caller reads, and has mended where that fails.

use std::fmt::Display;

use super::Chat;
use super::turns::Undo;
use crate::error::Error;
use crate::reply::Reply;

/// Tokens of an answer, where the chat sets no other number.
const TOKENS: usize = 512;

impl Chat {
    /// Says `text`, and has `read` make something of the answer. Where it fails, the model is told
    /// why and answers once more, at most `repairs` times (specification 1.3 D).
    ///
    /// Where the chat has no value of its own, the temperature is 0 and an answer has 512 tokens at
    /// most. The answer that was read enters the history as if it had been the first.
    ///
    /// # Errors
    /// [`Error::UnusableAnswer`] with the last failure, and those of [`Chat::ask`]; the history is what
    /// it was then.
    pub fn ask_for<T, E: Display>(
        &mut self,
        text: impl Into<String>,
        repairs: usize,
        mut read: impl FnMut(&Reply) -> Result<T, E>,
    ) -> Result<(T, Reply), Error> {
        let undo = Undo::from(&mut self.history, None);
        let asked = self.history.len() + 1;
        let sampling = self.sampling.clone();
        self.sampling.temperature.get_or_insert(0.0);
        self.sampling.max_new_tokens.get_or_insert(TOKENS);
        let result = self.ask_until(text.into(), repairs, &mut read);
        self.sampling = sampling;
        match result {
            Ok((value, reply, answered)) => {
                // Without the answers that were none.
                let answer = self.history.split_off(answered);
                self.history.truncate(asked);
                self.history.extend(answer);
                Ok((value, reply))
            }
            Err(error) => {
                undo.apply(&mut self.history);
                Err(error)
            }
        }
    }

    /// Gives what was read, and where in the history what was answered last begins.
    fn ask_until<T, E: Display>(
        &mut self,
        mut text: String,
        repairs: usize,
        read: &mut impl FnMut(&Reply) -> Result<T, E>,
    ) -> Result<(T, Reply, usize), Error> {
        let mut attempts = 1;
        loop {
            let turn = self.say(text);
            let answered = self.history.len();
            let reply = self.reply(turn)?;
            let problem = match read(&reply) {
                Ok(value) => return Ok((value, reply, answered)),
                Err(problem) => problem.to_string(),
            };
            if attempts > repairs {
                return Err(Error::UnusableAnswer { attempts, problem });
            }
            text = format!(
                "That answer cannot be used: {problem}\n\
                 Answer again, mended, and with nothing else."
            );
            attempts += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{answers, engine};
    use crate::{Chat, Message, Reply};

    /// A chat with a model that writes JSON once it was told so often that it did not.
    fn chat(failures: usize) -> Chat {
        let (engine, _) = engine(
            8_000,
            answers(
                move |prompt| match prompt.matches("cannot be used: key").count() {
                    told if told < failures => format!("{{nothing {told}"),
                    told => format!("{{\"told\": {told}}}"),
                },
            ),
        );
        engine.chat()
    }

    fn read(reply: &Reply) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&reply.text)
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_mended() {
        for failures in 0..3 {
            let mut chat = chat(failures);
            let before = chat.current_sampling().clone();
            chat.ask("hello").expect("a reply");
            chat.reset();
            let (value, reply) = chat.ask_for("q", 2, read).expect("JSON");
            assert_eq!(value["told"], failures);
            assert_eq!(reply.settings.temperature, 0.0);
            let expected = [Message::user("q"), Message::assistant(reply.text)];
            assert_eq!(chat.history(), expected, "as if it had been the first");
            assert_eq!(*chat.current_sampling(), before);
        }
    }

    #[test]
    fn without_an_answer_that_can_be_read_nothing_was_said() {
        let mut chat = chat(3);
        let error = chat.ask_for("q", 2, read).expect_err("no JSON");
        assert_eq!(error.kind(), "unusable_answer");
        assert!(
            error.to_string().starts_with("of 3 answers none"),
            "{error}"
        );
        assert!(chat.history().is_empty());
    }
}
