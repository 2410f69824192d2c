//! Small vocabularies, and texts that go through constraints.

use std::path::PathBuf;
use std::sync::Arc;

use tercel_text::grammar::Constraint;
use tercel_text::{Tokenizer, TokenizerParts};

/// A vocabulary of `test-data/tokenizers`: byte-level BPE, or SentencePiece with bytes.
pub(crate) fn tokenizer(name: &str) -> Arc<Tokenizer> {
    #[derive(serde::Deserialize)]
    struct File {
        tokens: Vec<String>,
        kinds: Vec<i32>,
        merges: Option<Vec<String>>,
        scores: Option<Vec<f32>>,
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/tokenizers");
    let file = std::fs::read(root.join(name)).expect("a committed file");
    let file: File = serde_json::from_slice(&file).expect("a vocabulary");
    let end = ["<|end|>", "<eos>"];
    let end = file.tokens.iter().position(|it| end.contains(&it.as_str()));
    let mut parts = TokenizerParts::default();
    parts.model = if file.merges.is_some() {
        "gpt2"
    } else {
        "llama"
    };
    parts.pre = Some("gpt-2");
    parts.tokens = file.tokens.iter().map(String::as_str).collect();
    parts.kinds = Some(file.kinds);
    parts.scores = file.scores;
    parts.merges = file
        .merges
        .as_ref()
        .map(|it| it.iter().map(String::as_str).collect());
    parts.eos = end.map(|id| id as u32);
    parts.add_space_prefix = Some(false);
    Arc::new(Tokenizer::from_parts(&parts).expect("a tokenizer"))
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
