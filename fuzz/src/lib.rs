//! What several targets share.

use std::sync::{Arc, LazyLock};

use tercel_text::grammar::{Grammar, Grammars};
use tercel_text::{Tokenizer, TokenizerParts};

/// Tokens that are gone on with.
const STEPS: usize = 40;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let letters: Vec<String> = (b'!'..=b'~')
        .map(|byte| char::from(byte).to_string())
        .collect();
    let mut parts = TokenizerParts::default();
    parts.model = "gpt2";
    parts.pre = Some("gpt-2");
    parts.tokens = letters
        .iter()
        .map(String::as_str)
        .chain(["<|end|>"])
        .collect();
    parts.kinds = Some(vec![1; letters.len()].into_iter().chain([3]).collect());
    parts.merges = Some(Vec::new());
    parts.eos = u32::try_from(letters.len()).ok();
    let tokenizer = Tokenizer::from_parts(&parts).expect("a vocabulary");
    Grammars::new(Arc::new(tokenizer)).expect("an end")
});

/// Compiles a grammar, and goes on along it for some tokens.
pub fn walk(grammar: &Grammar) {
    let mut constraint = match GRAMMARS.compile(grammar) {
        Ok(constraint) => constraint,
        Err(error) => return assert_eq!(error.to_string().lines().count(), 1),
    };
    for step in 0..STEPS {
        // What is too much work is an error, and the end.
        let Ok(mask) = constraint.mask() else { return };
        let allowed = (0..95).filter(|token| mask.allows(*token));
        let allowed: Vec<u32> = allowed.collect();
        let Some(token) = allowed.get(step * 7 % allowed.len().max(1)) else {
            return;
        };
        constraint.accept(*token).expect("it is allowed");
        if constraint.is_over() != Ok(false) {
            return;
        }
    }
}
