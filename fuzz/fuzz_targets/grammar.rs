//! Compiles any text as a pattern or a grammar, and goes on along it for some tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tercel_fuzz::walk;
use tercel_text::grammar::Grammar;

fuzz_target!(|data: (u8, &str)| {
    let (kind, text) = data;
    walk(&match kind % 3 {
        0 => Grammar::Regex(text.to_owned()),
        1 => Grammar::Lark(text.to_owned()),
        _ => Grammar::Gbnf(text.to_owned()),
    });
});
