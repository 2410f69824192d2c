//! Reads a `tokenizer.json`, and tokenizes a text with what comes of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tercel_text::{HfTokenizerFiles, Tokenizer};

/// Parts the file from a text that follows it.
const SEPARATOR: u8 = 0;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == SEPARATOR);
    let (file, text) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let files = HfTokenizerFiles {
        tokenizer_json: file,
        tokenizer_config: None,
        special_tokens_map: None,
    };
    match Tokenizer::from_hf(&files) {
        Ok(tokenizer) => {
            let text = String::from_utf8_lossy(text);
            let text = format!("{text} The river's 12 \u{fb01}sh.\n\n");
            for ids in [tokenizer.encode(&text), tokenizer.encode_trusted(&text)] {
                assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
                tokenizer.decode(&ids);
            }
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
});
