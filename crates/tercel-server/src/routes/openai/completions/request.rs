//! What is asked of a completion, and what of it is to be had.

use crate::config::Limits;
use crate::error::ApiError;
use crate::routes::openai::prompts::{self, PromptItem};
use crate::routes::openai::sampling::{self, StreamOptions, generation_request, refuse};
use crate::routes::openai::texts::TextOr;
use crate::work::{Ask, Input};

generation_request! {
    /// Texts that are to be continued as they stand.
    struct CompletionRequest {
        // A text, a list of texts, a list of tokens or a list of such lists.
        #[schema(inline)]
        prompt: TextOr<PromptItem>,
        /// How many replies to each.
        #[schema(minimum = 1)]
        n: Option<usize>,
        /// The most tokens to generate.
        #[schema(minimum = 1)]
        max_tokens: Option<usize>,
        /// Tells how likely the tokens were, with so many alternatives.
        #[schema(minimum = 0, maximum = 5)]
        logprobs: Option<usize>,
        /// Whether the reply begins with the prompt.
        echo: Option<bool>,
        stream_options: Option<StreamOptions>,
        /// Must be as `n`: no reply is thrown away.
        best_of: Option<usize>,
        /// Must be absent.
        suffix: Option<String>,
    }
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    /// One for each prompt.
    pub(super) asks: Vec<Ask>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) shape: Shape,
}

/// What the reply is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    /// Replies to each prompt.
    pub(super) choices: usize,
    /// The texts that replies begin with, for each prompt; empty where they are not wanted.
    pub(super) echoes: Vec<String>,
    /// Alternatives to tell of each token; `None` tells nothing.
    pub(super) logprobs: Option<usize>,
}

impl Shape {
    /// What the reply with this index begins with.
    pub(super) fn echo(&self, index: usize) -> &str {
        let prompt = index.checked_div(self.choices).unwrap_or_default();
        self.echoes.get(prompt).map_or("", |echo| echo)
    }
}

impl CompletionRequest {
    /// Checks what needs no model.
    pub(super) fn check(self, limits: &Limits) -> Result<Checked, ApiError> {
        let why = "nothing is put in between two texts";
        refuse("suffix", self.suffix.is_some(), why)?;
        let choices = sampling::choices(self.n, limits.choices)?;
        let is_more = self.best_of.is_some_and(|best_of| best_of != choices);
        refuse(
            "best_of",
            is_more,
            "it must be as `n`: no reply is thrown away",
        )?;
        if let Some(top) = self.logprobs.filter(|top| *top > 5) {
            let message = format!("`logprobs` is {top}, must be 0 to 5");
            return Err(ApiError::invalid("logprobs", message));
        }
        let echo = self.echo == Some(true);
        let why = "prompts have no log-probabilities";
        refuse("echo", echo && self.logprobs.is_some(), why)?;
        let stream = self.stream == Some(true);
        let include_usage = StreamOptions::usage(self.stream_options, stream)?;
        let mut ask = self.ask(Input::Text(String::new()))?;
        ask.sampling.max_new_tokens = self.max_tokens;
        ask.logprobs = self.logprobs;
        let inputs = prompts::inputs(self.prompt, "prompt")?;
        let (count, most) = (inputs.len().saturating_mul(choices), limits.choices);
        if count > most {
            let message =
                format!("`prompt` and `n` ask for {count} replies, at most {most} are made");
            return Err(ApiError::invalid("prompt", message));
        }
        let mut shape = Shape {
            choices,
            logprobs: self.logprobs,
            ..Shape::default()
        };
        let mut asks = Vec::with_capacity(inputs.len());
        for input in inputs {
            if echo {
                let Input::Text(text) = &input else {
                    let message = "`echo` is not supported for tokens";
                    return Err(ApiError::unsupported("echo", message));
                };
                shape.echoes.push(text.clone());
            }
            let ask = Ask {
                input,
                ..ask.clone()
            };
            ask.check(limits)
                .map_err(|error| sampling::in_word(error, "max_tokens"))?;
            asks.push(ask);
        }
        Ok(Checked {
            asks,
            stream,
            include_usage,
            shape,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body::parse;

    fn check(body: &Value) -> Result<Checked, ApiError> {
        let request: CompletionRequest = parse(body.to_string().as_bytes(), 32)?;
        request.check(&Limits::default())
    }

    #[test]
    fn each_prompt_is_asked_for_itself() {
        let checked = check(
            &json!({"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 2,
            "echo": true, "max_tokens": 4, "temperature": 0, "seed": 3, "stop": ["x"]}),
        )
        .unwrap();
        let inputs: Vec<&Input> = checked.asks.iter().map(|ask| &ask.input).collect();
        assert_eq!(
            inputs,
            [&Input::Text("a".to_owned()), &Input::Text("b".to_owned())]
        );
        let echoes: Vec<&str> = (0..4).map(|index| checked.shape.echo(index)).collect();
        assert_eq!(echoes, ["a", "a", "b", "b"]);
        assert_eq!(checked.asks[1].sampling.max_new_tokens, Some(4));
        assert_eq!(checked.asks[1].sampling.seed, Some(3));

        let checked = check(&json!({"prompt": [1, 2], "logprobs": 5})).unwrap();
        assert_eq!(checked.asks[0].input, Input::Tokens(vec![1, 2]));
        assert_eq!(checked.asks[0].logprobs, Some(5));
        assert_eq!(checked.shape.echo(0), "");
    }

    #[test]
    fn what_is_not_to_be_had_is_refused_by_name() {
        for (body, code, param) in [
            (
                json!({"prompt": "a", "suffix": "b"}),
                "unsupported_parameter",
                "suffix",
            ),
            (
                json!({"prompt": "a", "best_of": 2}),
                "unsupported_parameter",
                "best_of",
            ),
            (
                json!({"prompt": "a", "logprobs": 6}),
                "invalid_parameter",
                "logprobs",
            ),
            (
                json!({"prompt": "a", "logprobs": true}),
                "invalid_request",
                "logprobs",
            ),
            (
                json!({"prompt": "a", "echo": true, "logprobs": 1}),
                "unsupported_parameter",
                "echo",
            ),
            (
                json!({"prompt": [1], "echo": true}),
                "unsupported_parameter",
                "echo",
            ),
            (json!({"prompt": []}), "invalid_parameter", "prompt"),
            (
                json!({"prompt": vec!["a"; 5], "n": 2}),
                "invalid_parameter",
                "prompt",
            ),
            (
                json!({"prompt": "a", "max_tokens": 0}),
                "invalid_parameter",
                "max_tokens",
            ),
            (
                json!({"prompt": "a", "temperature": -1}),
                "invalid_parameter",
                "temperature",
            ),
            (
                json!({"prompt": "a", "stream_options": {}}),
                "invalid_parameter",
                "stream_options",
            ),
            (
                json!({"prompt": "a", "messages": []}),
                "invalid_request",
                "messages",
            ),
        ] {
            let error = check(&body).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, Some(param)),
                "{body}: {error:?}"
            );
        }
    }
}
