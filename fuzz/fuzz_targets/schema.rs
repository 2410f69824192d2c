//! Compiles any JSON as a schema, and goes on along it for some tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tercel_fuzz::walk;
use tercel_text::grammar::Grammar;

fuzz_target!(|text: &str| {
    if let Ok(schema) = serde_json::from_str(text) {
        walk(&Grammar::JsonSchema(schema));
    }
});
