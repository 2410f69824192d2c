//! Small vocabularies, and texts that go through constraints.

use std::sync::Arc;

use tercel_text::Tokenizer;
use tercel_text::grammar::Constraint;

#[expect(
    dead_code,
    reason = "most of it compares ids, which are not looked at here"
)]
#[path = "../parity/common.rs"]
mod vocabularies;

/// A vocabulary of `test-data/tokenizers`: byte-level BPE, or SentencePiece with bytes.
pub(crate) fn tokenizer(name: &str) -> Arc<Tokenizer> {
    let file = vocabularies::Expected::load(name);
    let tokenizer = Tokenizer::from_parts(&vocabularies::tiny_parts(&file));
    Arc::new(tokenizer.expect("a tokenizer"))
}

/// Whether the text goes through as a whole: each token is allowed, and the end after the last.
pub(crate) fn goes_through(tokenizer: &Tokenizer, mut constraint: Constraint, text: &str) -> bool {
    for token in tokenizer.encode(text) {
        if !constraint.mask().expect("a mask").allows(token) {
            return false;
        }
        constraint.accept(token).expect("it is allowed");
    }
    let end = tokenizer.end_ids()[0];
    constraint.mask().expect("a mask").allows(end)
}
