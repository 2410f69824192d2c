//! What several targets share.

use std::sync::{Arc, LazyLock};

use tercel_text::grammar::{Grammar, Grammars};
use tercel_text::{Tokenizer, TokenizerParts};

/// Tokens that are gone on with.
const STEPS: usize = 40;

/// Every byte, as byte-level vocabularies write them: what they lack could not be kept to.
static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    let mut others = (0x100..).filter_map(char::from_u32);
    let bytes: Vec<String> = (0..=u8::MAX)
        .map(|byte| match is_itself(byte) {
            true => char::from(byte).to_string(),
            false => others.next().map(String::from).unwrap_or_default(),
        })
        .collect();
    let mut parts = TokenizerParts::default();
    parts.model = "gpt2";
    parts.pre = Some("gpt-2");
    parts.tokens = bytes
        .iter()
        .map(String::as_str)
        .chain(["<|end|>"])
        .collect();
    parts.kinds = Some(vec![1; bytes.len()].into_iter().chain([3]).collect());
    parts.merges = Some(Vec::new());
    parts.eos = u32::try_from(bytes.len()).ok();
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
        let allowed = (0..256).filter(|token| mask.allows(*token));
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
