//! Prompts of a wanted length that differ from run to run, so that nothing is held from the last.

use std::hint::black_box;
use std::time::Instant;

use tercel::{Engine, Message, Request, TokenId};

use super::BenchOptions;

/// What made-up prompts are cut from: the kind of text that people send.
const TEXT: &str = "\
The harbour was quiet before the boats came in. A woman counted the lamps along the quay, and wrote \
their number on the back of a letter that she had not yet sent. In 1911 there had been forty; now \
there were twenty-six. When did you last repair them? she asked the keeper, who shrugged. \"The \
council pays for oil,\" he said, \"not for glass.\" Rain had been forecast for three days, and the \
wind had turned to the north. She thought of the list in her pocket: bread, thread, two yards of \
linen, a new wick. Far out, a bell rang at intervals that were not quite regular; one could measure \
the height of the waves by it. If the boats were late, the market would open without fish, and the \
price of eggs would go up by a penny, as it always did. ";

/// Makes the prompts of a measurement.
pub(super) struct Prompts {
    text: Vec<TokenId>,
    depth: Vec<TokenId>,
    len: usize,
    given: Option<String>,
}

/// A prompt, and what it took to make it beyond what the engine does itself.
pub(super) struct Prompt {
    pub(super) request: Request,
    pub(super) tokenize_s: f64,
}

impl Prompts {
    pub(super) fn new(engine: &Engine, options: &BenchOptions) -> Self {
        let text = engine.tokenizer().encode(TEXT);
        Self {
            depth: cut(&text, 0, options.depth),
            text,
            len: options.prompt_tokens,
            given: options.prompt.clone(),
        }
    }

    /// What all prompts begin with, where that is to be computed before.
    pub(super) fn depth(&self) -> Option<&[TokenId]> {
        (!self.depth.is_empty()).then_some(&self.depth)
    }

    /// Prompt `number`. One of the caller's gets the model's template where there is one.
    pub(super) fn make(&self, engine: &Engine, number: usize) -> Prompt {
        if let Some(given) = &self.given {
            let request = if engine.info().has_template {
                Request::chat(vec![Message::user(given)])
            } else {
                Request::prompt(given)
            };
            return Prompt {
                request,
                tokenize_s: 0.0,
            };
        }
        // Another step than a divisor of the length: the beginnings are all different.
        let tokens = cut(&self.text, 1 + number * 7, self.len);
        // The engine gets tokens, so that their number is exact; what text would have cost is
        // measured here.
        let words = engine.tokenizer().decode(&tokens);
        let started = Instant::now();
        black_box(engine.tokenizer().encode(&words));
        Prompt {
            tokenize_s: started.elapsed().as_secs_f64(),
            request: Request::tokens([self.depth.as_slice(), &tokens].concat()),
        }
    }
}

/// `len` tokens of a text that begins anew at its end.
fn cut(text: &[TokenId], from: usize, len: usize) -> Vec<TokenId> {
    let from = from.checked_rem(text.len()).unwrap_or(0);
    text.iter().copied().cycle().skip(from).take(len).collect()
}
